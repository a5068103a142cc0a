// Makes calls with @grpc/grpc-js: reads one JSON object a line, answers with one.
"use strict";

const readline = require("node:readline");
const grpc = require("@grpc/grpc-js");

const asIs = (bytes) => bytes;

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of pairs) {
    metadata.add(key, typeof value === "string" ? value : Buffer.from(value.base64, "base64"));
  }
  return metadata;
}

function plain(metadata) {
  const pairs = [];
  for (const key of Object.keys(metadata ? metadata.getMap() : {})) {
    for (const value of metadata.get(key)) {
      pairs.push([key, typeof value === "string" ? value : { base64: value.toString("base64") }]);
    }
  }
  return pairs;
}

function credentialsOf(tls) {
  if (!tls) return grpc.credentials.createInsecure();
  const part = (text) => (text ? Buffer.from(text) : null);
  return grpc.credentials.createSsl(part(tls.authority), part(tls.key), part(tls.certificate));
}

function call(order) {
  return new Promise((resolve) => {
    const client = new grpc.Client(order.address, credentialsOf(order.tls), {
      "grpc.default_compression_algorithm": order.gzip ? grpc.compressionAlgorithms.gzip : 0,
    });
    const options = { deadline: Date.now() + order.seconds * 1000 };
    if (order.seconds === null) delete options.deadline;
    const answer = { messages: [], initial: [] };
    const take = (message) => answer.messages.push(message.toString("base64"));
    const [streamsRequest, streamsResponse] = order.streams;
    const path = [order.path, asIs, asIs];
    const messages = order.messages.map((text) => Buffer.from(text, "base64"));
    const request = streamsRequest ? [] : [messages[0]];
    const common = [...path, ...request, metadataOf(order.metadata), options];
    const ignoreError = () => {};
    const taken = (error, message) => { if (!error) take(message); };

    let made;
    if (streamsResponse) {
      made = streamsRequest ? client.makeBidiStreamRequest(...common) : client.makeServerStreamRequest(...common);
      made.on("data", take);
      made.on("error", ignoreError);
    } else {
      made = streamsRequest
        ? client.makeClientStreamRequest(...common, taken)
        : client.makeUnaryRequest(...common, taken);
    }
    made.on("metadata", (metadata) => { answer.initial = plain(metadata); });
    const told = (event) => new Promise((done) => made.on(event, done));
    // Messages of a stream may be told after its status.
    Promise.all([told("status"), streamsResponse && told("end")]).then(([status]) => {
      client.close();
      resolve({ ...answer, code: status.code, message: status.details, trailing: plain(status.metadata) });
    });
    if (streamsRequest) {
      for (const message of messages) made.write(message);
      made.end();
    }
  });
}

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  process.stdout.write(JSON.stringify(await call(JSON.parse(line))) + "\n");
});
