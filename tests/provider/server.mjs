// A real authorization server for the tests: oidc-provider, strict about refresh tokens, on 127.0.0.1.
//
// Prints one JSON line on stdout once it accepts connections: {"listening": port, "issuer": "http://127.0.0.1:port"}.
//
// Environment:
//   PORT        port to listen on; 0 or absent: any free one
//   ACCESS_TTL  lifetime of access tokens in seconds; absent: 3600
//   ROTATE      0: a refresh returns the same refresh token; else: a new one each time
//   LATENCY_MS  how long the token endpoint holds back an answer that it has already made up its mind about,
//               so that whoever is cut off while waiting has lost a refresh that did happen
//   CLIENT_JWK  the public ES256 key (a JSON Web Key) of the client svc-jwt, which exists only with it
//
// Clients: svc-basic, svc-post, svc-jwt (client credentials) and web (refresh tokens), see `clients` below. Scopes: read,
// write, offline_access, openid. Access tokens are opaque; those for the resource urn:test:api are signed JWTs. Using
// a rotated refresh token again revokes its whole grant.
//
// What a test can do and see beside OAuth, all under /_test/:
//   POST refresh-token {"client", "sub", "scope", "resource"?}  → {"refresh_token"}, as if the person had just consented
//   GET  log                   → every token request in order of arrival; tokens appear as the first 16 hex digits of
//                                their SHA-256; "status" is absent while the request is being handled
//   GET  alive?refresh=TOKEN   → {"alive": its grant lives, "consumed": the token was rotated away}
//   POST introspect {"token"}  → {"active"}, for opaque tokens and JWTs alike

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { exportJWK, generateKeyPair, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';
import Store from './store.mjs';

const { PORT = '0', ACCESS_TTL = '3600', ROTATE = '1', LATENCY_MS = '0', CLIENT_JWK } = process.env;
const RESOURCE = 'urn:test:api';
const SCOPES = 'openid offline_access read write';

// Stdout carries the one line that tests wait for; the library's notices go to stderr.
console.info = console.error;

// Every printable ASCII sign that encoding can get wrong is in the first secret: RFC 6749 §2.3.1 wants it
// form-urlencoded before base64, and "%2B" turns into "+" for whoever decodes it twice. No other signs are allowed
// (RFC 6749 appendix A.2).
const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] };
const clients = [
  {
    ...machine,
    client_id: 'svc-basic',
    client_secret: 'p@ss:w/rd +&=%2B~*"\\?#;',
    token_endpoint_auth_method: 'client_secret_basic',
  },
  {
    ...machine,
    client_id: 'svc-post',
    client_secret: 'post+secret&=%20',
    token_endpoint_auth_method: 'client_secret_post',
  },
  {
    client_id: 'web',
    client_secret: 'web-secret',
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
  },
];
if (CLIENT_JWK) {
  clients.push({
    ...machine,
    client_id: 'svc-jwt',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [JSON.parse(CLIENT_JWK)] },
  });
}

const signing = await generateKeyPair('ES256', { extractable: true });
const configuration = {
  adapter: Store,
  clients,
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clockTolerance: 0,
  cookies: { keys: ['of no use: no browser comes here'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
    resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
  },
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  jwks: { keys: [{ ...(await exportJWK(signing.privateKey)), alg: 'ES256', use: 'sig' }] },
  rotateRefreshToken: ROTATE !== '0',
  scopes: SCOPES.split(' '),
  ttl: {
    AccessToken: Number(ACCESS_TTL),
    ClientCredentials: Number(ACCESS_TTL),
    Grant: 86_400,
    IdToken: 3600,
    RefreshToken: 86_400,
  },
};

function resourceServer(_ctx, resource) {
  if (resource !== RESOURCE) throw new errors.InvalidTarget(`only ${RESOURCE} is known here`);
  return { scope: SCOPES, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
}

const fingerprint = (token) => (token ? createHash('sha256').update(token).digest('hex').slice(0, 16) : null);

// The issuer's name holds the port, so the port comes first.
const server = createServer().listen(Number(PORT), '127.0.0.1');
// A pooled connection is never closed under a client that is about to use it.
server.keepAliveTimeout = 0;
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, configuration);

const started = performance.now();
const log = [];
let turn = Promise.resolve();

// Requests are handled one at a time: of two that present the same refresh token, the later one is always a reuse.
async function token(ctx, next) {
  const entry = { n: log.length + 1, at_ms: Math.round(performance.now() - started) };
  log.push(entry);
  const mine = turn.then(next);
  turn = mine.catch(() => {});
  await mine;
  const params = ctx.oidc?.params;
  Object.assign(entry, {
    grant_type: params?.grant_type ?? null,
    client_id: ctx.oidc?.client?.clientId ?? params?.client_id ?? null,
    presented: fingerprint(params?.refresh_token),
    status: ctx.status,
    error: ctx.body?.error ?? null,
    issued: fingerprint(ctx.body?.refresh_token),
  });
  await sleep(Number(LATENCY_MS));
}

async function mint({ client: clientId, sub, scope, resource }) {
  const client = await provider.Client.find(clientId);
  const grant = new provider.Grant({ accountId: sub, clientId });
  grant.addOIDCScope(scope);
  if (resource) grant.addResourceScope(resource, scope);
  const refresh = new provider.RefreshToken({
    accountId: sub,
    client,
    grantId: await grant.save(),
    gty: 'authorization_code',
    resource,
    scope,
  });
  return { refresh_token: await refresh.save() };
}

async function alive(value) {
  const refresh = await provider.RefreshToken.find(value, { ignoreExpiration: true });
  const grant = refresh && (await provider.Grant.find(refresh.grantId));
  return { alive: Boolean(grant), consumed: Boolean(refresh?.consumed) };
}

async function introspect(value) {
  const models = [provider.AccessToken, provider.ClientCredentials, provider.RefreshToken];
  const found = await Promise.all(models.map((model) => model.find(value)));
  if (found.some((stored) => stored?.isValid)) return { active: true };
  const verified = await jwtVerify(value, signing.publicKey, { issuer, audience: RESOURCE }).catch(() => null);
  return { active: verified !== null };
}

const control = {
  'POST /_test/refresh-token': async (ctx) => mint(await json(ctx.req)),
  'GET /_test/log': () => log,
  'GET /_test/alive': (ctx) => alive(ctx.query.refresh),
  'POST /_test/introspect': async (ctx) => introspect((await json(ctx.req)).token),
};

provider.use(async (ctx, next) => {
  const answer = control[`${ctx.method} ${ctx.path}`];
  if (answer) ctx.body = await answer(ctx);
  else if (ctx.method === 'POST' && ctx.path === '/token') await token(ctx, next);
  else await next();
});
server.on('request', provider.callback());
console.log(JSON.stringify({ listening: server.address().port, issuer }));
