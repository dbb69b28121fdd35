import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jsonValue } from '../../src/model/json.js';

test('given records with times, bytes and maps, when they become JSON, then those are text and objects', () => {
  const record = {
    createdAt: 1_700_000_000_000_000_001n,
    spec: { typeUrl: 'a', value: new Uint8Array([1, 2]) },
    copy: Buffer.from([3]),
    stats: new Map([['native', 1]]),
    size: 3,
  };
  assert.deepEqual(JSON.parse(JSON.stringify(record, jsonValue)), {
    createdAt: '2023-11-14T22:13:20.000000001Z',
    spec: { typeUrl: 'a', value: 'AQI=' },
    copy: 'Aw==',
    stats: { native: 1 },
    size: 3,
  });
});
