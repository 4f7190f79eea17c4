// Express or Fastify with one route and the hooks of benchmarks/serving.py around it.
// node serving.mjs NAME DIR: DIR holds their node_modules. Ends with its standard input.

import { createRequire } from "node:module";
import { resolve } from "node:path";

const [name, directory] = process.argv.slice(2);
const require = createRequire(resolve(directory, "package.json"));
const hello = async () => ({ hello: "world" });
const HANDLERS = 3;
const listening = (port) => console.log(`http://127.0.0.1:${port}`);

if (name === "Express") {
  const app = require("express")();
  // Express has no hook on a response that is ready: twice as many before the handler instead.
  for (let i = 0; i < 2 * HANDLERS; i++) app.use(async (req, res, next) => next());
  app.get("/hello", async (req, res) => res.json(await hello()));
  const server = app.listen(0, "127.0.0.1", () => listening(server.address().port));
} else {
  const app = require("fastify")();
  for (let i = 0; i < HANDLERS; i++) {
    app.addHook("onRequest", async () => {});
    app.addHook("onSend", async () => {});
  }
  app.get("/hello", hello);
  await app.listen({ port: 0, host: "127.0.0.1" });
  listening(app.server.address().port);
}

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
