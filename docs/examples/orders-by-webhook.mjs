// Keeps a book of paid orders from signed webhooks. Each payment is booked once, even if events repeat, are late or forged.
//
// Needs Node 18 or newer, and no packages. To run it:
//
//   WEBHOOK_SECRETS="whsec_..." BOOK=book.jsonl PORT=8090 node orders-by-webhook.mjs
//
// The book is a journal: one line of JSON per event, written to disk before the event is answered. A line contains the
// event's id and its effect, so neither exists without the other. A database transaction does the same.

import { createHmac, timingSafeEqual } from "node:crypto";
import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";

// Two secrets, separated by a space, while one replaces the other.
const SECRETS = process.env.WEBHOOK_SECRETS.split(" ").map((secret) =>
  Buffer.from(secret.replace(/^whsec_/, ""), "base64"),
);
const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 256 * 1024;
const TEST = "payment.test";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Throws unless one of our secrets signed exactly these bytes recently (https://www.standardwebhooks.com). */
function verify(headers, body, nowSeconds) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(nowSeconds - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Refused(401, "webhook-timestamp is missing, or too far from our clock");
  }
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const expected = SECRETS.map((secret) => createHmac("sha256", secret).update(signed).digest());
  const shown = (headers["webhook-signature"] ?? "").split(" ").filter((one) => one.startsWith("v1,"));
  const fits = shown.some((one) => {
    const signature = Buffer.from(one.slice("v1,".length), "base64");
    return expected.some((mac) => mac.length === signature.length && timingSafeEqual(mac, signature));
  });
  if (!fits) throw new Refused(401, "no signature fits");
}

/** The book: the state of every order, and the journal from which it is read at the start. */
class Book {
  #seen = new Set();
  #orders = new Map();
  #journal;

  constructor(path) {
    this.#journal = openSync(path, "a+");
    const text = readFileSync(path);
    // A last line without a line break was cut off by a crash. Its event was never answered, so it will come again.
    const whole = text.subarray(0, text.lastIndexOf("\n") + 1);
    ftruncateSync(this.#journal, whole.length);
    for (const line of whole.toString().split("\n").slice(0, -1)) this.#remember(JSON.parse(line));
  }

  /** Books one event and returns what was done, once that is on disk. */
  take({ id, type, data }) {
    if (this.#seen.has(id)) return "seen before";
    const order = JSON.stringify([data.merchant, data.biz_order_no]);
    const known = this.#orders.get(order) ?? { sequence: 0, booked: false };
    // For each order, the highest sequence counts. Do not wait for gaps: they are events that we did not ask for.
    const late = data.sequence <= known.sequence;
    // Do nothing about a disputed order until a later event says what is true. Otherwise `status` is the current
    // status, whatever the type. So payment.corrected needs no code of its own.
    const disputed = type === "payment.conflicted";
    const booked = late || disputed ? known.booked : data.status === "succeeded";
    const direction = Number(booked) - Number(known.booked); // 1 books the payment, -1 takes it back
    const { sequence, status, amount, amount_unit } = data;
    this.#write({ id, order, sequence, status, disputed, late, booked, direction, amount, amount_unit });
    return late ? "late" : disputed ? "disputed" : ["taken back", "nothing to book", "booked"][direction + 1];
  }

  #write(entry) {
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    // If the disk is full, the process ends, because only the journal says what is true.
    if (writeSync(this.#journal, line) !== line.length) throw new Error("the journal was written in part");
    fsyncSync(this.#journal);
    this.#remember(entry);
  }

  #remember(entry) {
    this.#seen.add(entry.id);
    if (!entry.late) this.#orders.set(entry.order, entry);
  }

  close() {
    closeSync(this.#journal);
  }
}

/** The bytes of the body as they were sent, because these are signed, and not the result of JSON.parse. */
async function readBody(request) {
  const parts = [];
  let size = 0;
  try {
    for await (const part of request) {
      size += part.length;
      if (size > MAX_BODY_BYTES) break;
      parts.push(part);
    }
  } catch (error) {
    throw new Refused(400, `the body broke off: ${error.message}`);
  }
  if (size > MAX_BODY_BYTES) throw new Refused(413, "too large");
  return Buffer.concat(parts);
}

/** The event of a verified body. Unknown fields are allowed: later versions may add some. */
function readEvent(body) {
  try {
    const { id, type, data } = JSON.parse(body);
    if (id && type === TEST) return { id, type, data };
    if (id && type && data.merchant && data.biz_order_no && data.sequence > 0 && data.status) return { id, type, data };
  } catch (error) {
    throw new Refused(400, `no event: ${error.message}`);
  }
  throw new Refused(400, "no event: a field is missing");
}

const book = new Book(process.env.BOOK);

async function answer(request, response) {
  if (request.method !== "POST") throw new Refused(405, "POST events here");
  const body = await readBody(request);
  verify(request.headers, body, Date.now() / 1000);
  const event = readEvent(body);
  // An operator's test is about no payment: answer it, and do not book it.
  console.log(`${event.id}: ${event.type === TEST ? "a test" : book.take(event)}`);
  // Any 2xx means that the event need not be sent again. This includes repeated and late events.
  response.writeHead(204).end();
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error.message);
    if (!(error instanceof Refused)) process.exit(1); // an error of the book: after a restart, it reads what is on disk
    response.writeHead(error.status, { connection: "close" }).end();
  });
});
server.listen(Number(process.env.PORT ?? 8090), process.env.HOST ?? "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
process.once("SIGTERM", () => server.close(() => book.close()));
