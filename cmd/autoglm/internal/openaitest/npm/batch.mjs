// The whole of OpenAI's Batch API with its npm client, against several nodes: each step goes to the next one.
// Standard input says where ({urls, hooks, secret, expires, model, inputs}); the report goes to standard output as JSON.
import { readFileSync } from 'node:fs';
import { File } from 'node:buffer';
import { webcrypto } from 'node:crypto';
import OpenAI, { toFile } from 'openai';
import { VERSION } from 'openai/version';

globalThis.File ??= File; // Node 18, which Debian and Ubuntu still have, lacks both
globalThis.crypto ??= webcrypto;

const endsWithin = 90_000; // ms
const pollEvery = 50;
const given = JSON.parse(readFileSync(0, 'utf8'));
const clients = given.urls.map((baseURL) => new OpenAI({ baseURL, apiKey: 'any', webhookSecret: given.secret }));
let turn = 0;
const next = () => clients[++turn % clients.length];
const ids = {}; // of batches, by their names

async function create(name, window) {
  const file = await next().files.create({ file: await toFile(Buffer.from(given.inputs[name]), `${name}.jsonl`), purpose: 'batch' });
  const b = await next().batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: window, metadata: { name } });
  ids[name] = b.id;
}

async function poll(name, ok) {
  for (const end = Date.now() + endsWithin; ; ) {
    const b = await next().batches.retrieve(ids[name]);
    if (ok(b)) return b;
    if (Date.now() > end) throw new Error(`the batch does not come so far: ${JSON.stringify(b)}`);
    await new Promise((on) => setTimeout(on, pollEvery));
  }
}

async function download(id) {
  if (!id) return [];
  const res = await next().files.content(id);
  return (await res.text()).split('\n').filter(Boolean).map((text) => JSON.parse(text));
}

async function outcome(name, cancelling = false) {
  const b = await poll(name, (b) => b.completed_at || b.failed_at || b.expired_at || b.cancelled_at);
  const res = await fetch(`${given.hooks}/${b.id}`);
  if (!res.ok) throw new Error(`no webhook of the ${name} batch: ${res.status}`);
  const hook = await res.json();
  const event = await next().webhooks.unwrap(hook.body, hook.headers);
  let tampered = '';
  try {
    await next().webhooks.unwrap(hook.body + ' ', hook.headers);
  } catch (e) {
    if (e instanceof OpenAI.InvalidWebhookSignatureError) tampered = 'refused';
  }
  const errors = (await download(b.error_file_id)).map((l) => `${l.custom_id} ${l.error?.code ?? l.response.body.error.code}`);
  for (const e of b.errors?.data ?? []) errors.push(`${e.line} ${e.code}`);
  return {
    status: b.status,
    counts: [b.request_counts.total, b.request_counts.completed, b.request_counts.failed],
    output: (await download(b.output_file_id)).map((l) => `${l.custom_id} ${l.response.body.choices[0].message.content}`),
    errors, webhook: event.type, tampered, cancelling,
  };
}

async function list() {
  const seen = await Promise.all(clients.map(async (c) => {
    const names = [];
    for await (const b of c.batches.list({ limit: 2 })) names.push(b.metadata.name);
    return names;
  }));
  for (const names of seen) {
    if (names.join() !== seen[0].join()) throw new Error(`nodes list other batches: ${JSON.stringify(seen)}`);
  }
  return seen[0];
}

// refusal is what a call is refused with, in the client's own type of error.
async function refusal(call) {
  try {
    await call();
  } catch (e) {
    if (!(e instanceof OpenAI.APIError) || !e.error?.message) throw e;
    return { class: e.constructor.name, status: e.status, type: e.type ?? '', code: e.code ?? '', param: e.param ?? '' };
  }
  throw new Error(`not refused: ${call}`);
}

const batches = {};
await create('expired', given.expires);
await create('completed', '24h');
batches.completed = await outcome('completed');
await create('cancelled', '24h');
await poll('cancelled', (b) => b.request_counts.completed === 1);
const cancelled = await next().batches.cancel(ids.cancelled);
batches.cancelled = await outcome('cancelled', cancelled.status === 'cancelling');
await create('failed', '24h');
batches.failed = await outcome('failed');
batches.expired = await outcome('expired');
const listed = await list();

const input = { input_file_id: (await next().batches.retrieve(ids.completed)).input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h' };
const ask = (model, content) => next().chat.completions.create({ model, messages: [{ role: 'user', content }] });
const errors = {
  'no such batch': await refusal(() => next().batches.retrieve('batch_x')),
  'no such file': await refusal(() => next().files.retrieve('file-x')),
  'no such input file': await refusal(() => next().batches.create({ ...input, input_file_id: 'file-x' })),
  'wrong endpoint': await refusal(() => next().batches.create({ ...input, endpoint: '/v1/other' })),
  'unknown parameter': await refusal(() => next().batches.create({ ...input, mixed_model: true })),
  'cancel of an ended': await refusal(() => next().batches.cancel(ids.completed)),
  'unknown model': await refusal(() => ask('gpt-9', 'now')),
  "the engine's": await refusal(() => ask(given.model, 'bad')),
};
console.log(JSON.stringify({ client: `openai ${VERSION}`, batches, listed, errors }));
