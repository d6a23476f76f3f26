// A receiver in Node: Fastify, and one amqplib channel with confirms for each of two workers. `node fastify_amqplib.js PORT`

import cluster from "node:cluster";
import { createHash } from "node:crypto";
import amqplib from "amqplib";
import fastify from "fastify";

const WORKERS = 2;

if (cluster.isPrimary) {
  for (let worker = 0; worker < WORKERS; worker++) cluster.fork();
} else {
  await serve(Number(process.argv[2]));
}

async function serve(port) {
  const connection = await amqplib.connect(process.env.AMQP_URL);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue("callbacks", { durable: true, arguments: { "x-queue-type": "quorum" } });

  const app = fastify();
  app.post("/notify/:merchant/:token", { schema: { body: schema() } }, async (request, reply) => {
    const { sign, ...callback } = request.body;
    if (createHash("md5").update(canonical(callback)).digest("hex") !== sign) {
      return reply.code(401).send("bad sign");
    }
    await publish(channel, Buffer.from(JSON.stringify(callback)));
    return "success";
  });
  await app.listen({ port, host: "127.0.0.1" });
}

function schema() {
  const names = ["biz_order_no", "pay_order_no", "order_type", "pay_type", "pay_status", "pay_time", "channel_response"];
  return {
    type: "object",
    required: [...names, "sign"],
    properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
  };
}

// Sorted keys, without spaces, everything beyond ASCII escaped: what the gateway signs.
function canonical(callback) {
  const sorted = Object.fromEntries(Object.keys(callback).sort().map((key) => [key, callback[key]]));
  const escape = (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
  return JSON.stringify(sorted).replace(/[\u0080-\uffff]/g, escape);
}

function publish(channel, body) {
  return new Promise((confirmed, refused) => {
    const settle = (error) => (error ? refused(error) : confirmed());
    channel.sendToQueue("callbacks", body, { persistent: true }, settle);
  });
}
