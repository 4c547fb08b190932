// Says which files are not as `terraform fmt` would write them; status 1 if any.
//
//     node format.mjs <folder with node_modules> FILE…
//
// The package holds Terraform's own formatter, compiled to WebAssembly.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const { format } = createRequire(join(modules, "package.json"))("@cdktf/hcl-tools");

for (const file of files) {
  const text = readFileSync(file, "utf8");
  if ((await format(text)) !== text) {
    console.log(`${file}: run terraform fmt`);
    process.exitCode = 1;
  }
}
