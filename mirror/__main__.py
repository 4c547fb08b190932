from mirror.cli.main import main

main()
