// Where the authorization server keeps grants and tokens: in memory, without a bound. The library's own
// in-memory store forgets the oldest entries, which would look like a revoked grant in the middle of a storm.

const entries = new Map();

export default class Store {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    entries.set(this.key(id), payload);
  }

  // The library itself judges whether what is found has expired.
  async find(id) {
    return entries.get(this.key(id));
  }

  async consume(id) {
    entries.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    entries.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of entries) {
      if (payload.grantId === grantId && key.startsWith(`${this.model}:`)) entries.delete(key);
    }
  }
}
