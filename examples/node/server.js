// A worker in Node.js: an HTTP server on the first inherited listener. It loses no request when it is replaced.
//
//     mcsup exec -w 2 -b 127.0.0.1:3000 -- node examples/node/server.js
//
// SIGHUP or `mcsup reload` replaces the workers by new ones with the current code, one after the other.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const net = require("node:net");

let isStopping = false;

const server = http.createServer((request, response) => {
  // The client's next request goes to another worker.
  if (isStopping) response.setHeader("Connection", "close");
  response.end(`${process.pid} ${request.url}\n`);
});

// The listeners are the descriptors from 3 on. This server serves one.
server.listen({ fd: 3 }, () => fs.writeSync(Number(process.env.MCSUP_READY_FD), "ready\n"));

process.once("SIGTERM", () => {
  isStopping = true;
  // http's own close() would end idle connections at once, and a request may be on its way there.
  net.Server.prototype.close.call(server);
  // After this time one without a request counts as unused: a browser opens such ones in advance.
  setTimeout(() => server.closeIdleConnections(), 2000).unref();
});
