// A client of bearerd in another language, made from the .proto files alone. Each run makes one call, prints one JSON
// line and exits 0; an rpc error prints what a caller can learn from it and exits 1.
//
//   client.mjs ADDRESS get CREDENTIAL [--refused GENERATION]
//   client.mjs ADDRESS invalidate CREDENTIAL GENERATION
//   client.mjs ADDRESS call CREDENTIAL METHOD PATH

import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const definitions = protoLoader.loadSync(['bearerd/v1/token.proto', 'google_rpc.proto'], {
  includeDirs: [here('../../../proto'), here('.')],
  defaults: true,
  enums: String,
  keepCase: true,
  longs: Number,
});
const { TokenService } = grpc.loadPackageDefinition(definitions).bearerd.v1;

const DEADLINE_MS = 30_000;
const USAGE = 'usage: client.mjs ADDRESS (get CREDENTIAL [--refused N] | invalidate CREDENTIAL N | call CREDENTIAL METHOD PATH)';

const commands = {
  async get(rpc, [credential], { refused }) {
    const { token } = await rpc('GetToken', { credential, refused_generation: refused });
    return {
      access_token: token.access_token,
      generation: token.generation,
      token_type: token.token_type,
      headers: Object.fromEntries(token.headers.map(({ name, value }) => [name, value])),
      expires_at: token.expires_at && seconds(token.expires_at),
    };
  },

  async invalidate(rpc, [credential, generation]) {
    const { outcome, token } = await rpc('InvalidateToken', { credential, generation });
    return {
      outcome: outcome.replace('INVALIDATE_TOKEN_OUTCOME_', ''),
      generation: token?.generation ?? null,
      access_token: token?.access_token ?? null,
    };
  },

  async call(rpc, [credential, method, path]) {
    const { status, attempts, refreshed, generation, body } = await rpc('CallThrough', { credential, method, path });
    return { status, attempts, refreshed, generation, body: body.toString() };
  },
};

const seconds = ({ seconds: whole, nanos }) => whole + nanos / 1e9;

// The details stand in a trailer as a serialized google.rpc.Status, each packed in an Any.
function explain(error) {
  const trailer = error.metadata?.get('grpc-status-details-bin')[0];
  const details = trailer ? definitions['google.rpc.Status'].deserialize(trailer).details : [];
  const detail = (type) => {
    const any = details.find(({ type_url }) => type_url.endsWith(`/${type}`));
    return any && definitions[type].deserialize(any.value);
  };
  const info = detail('google.rpc.ErrorInfo');
  const retry = detail('google.rpc.RetryInfo');
  return {
    code: grpc.status[error.code],
    reason: info?.reason ?? null,
    domain: info?.domain ?? null,
    retry_after_ms: retry ? Math.round(seconds(retry.retry_delay) * 1000) : null,
    message: error.details,
  };
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { refused: { type: 'string' } } });
const [address, command, ...rest] = positionals;
const wanted = { get: 1, invalidate: 2, call: 3 }[command];
if (wanted === undefined || rest.length !== wanted) {
  console.error(USAGE);
  process.exit(64);
}

const client = new TokenService(address, grpc.credentials.createInsecure());
const rpc = (method, request) =>
  promisify(client[method].bind(client))(request, { deadline: Date.now() + DEADLINE_MS });
try {
  console.log(JSON.stringify(await commands[command](rpc, rest, values)));
} catch (error) {
  if (!(error.metadata instanceof grpc.Metadata)) throw error;
  console.log(JSON.stringify(explain(error)));
  process.exitCode = 1;
} finally {
  client.close();
}
