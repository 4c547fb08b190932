// Runs miniflare's R2 with its S3 interface until it is stopped.
//
//     node r2.mjs '{"modules": "<folder with node_modules>", "port": 8700, "persist": "<folder>",
//                   "buckets": ["…"], "accessKeyId": "…", "secretAccessKey": "…"}'
//
// Prints one line, "ready". Stops on SIGTERM or SIGINT, or when its standard input ends, for example because
// its parent process died. The runtime (workerd) is a child that outlives a killed node, so every exit has to
// call dispose().
import { createRequire } from "node:module";
import { join } from "node:path";

const options = JSON.parse(process.argv[2]);
// An import would look for the package beside this file, but it is in the folder of the servers.
const { Miniflare } = createRequire(join(options.modules, "package.json"))("miniflare");

let miniflare;
let stopping = false;
async function stop() {
  if (stopping) return;
  stopping = true;
  await miniflare?.dispose();
  process.exit(0);
}
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, stop);
process.stdin.on("end", stop).on("error", stop).resume();

const s3Credentials = {
  accessKeyId: options.accessKeyId,
  secretAccessKey: options.secretAccessKey,
};
miniflare = new Miniflare({
  modules: true,
  script: "export default { fetch() { return new Response('ok'); } }",
  host: "127.0.0.1",
  port: options.port,
  cf: false, // otherwise it asks the internet for its location
  telemetry: { enabled: false },
  // The S3 interface knows a bucket by its id, the worker by its binding.
  r2Buckets: Object.fromEntries(
    options.buckets.map((id, i) => [`BUCKET_${i}`, { id, s3Credentials }]),
  ),
  r2Persist: options.persist,
});
await miniflare.ready;
console.log("ready");
