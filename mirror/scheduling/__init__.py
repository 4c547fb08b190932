"""A user's own schedule: a line of cron, or a timer of systemd."""
