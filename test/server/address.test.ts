/** How the address of a daemon's socket may be given: to the daemon, and to the command. */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { assertKind } from '../../src/engine/suite/support.js';
import { daemonOptions } from '../../src/server/config.js';
import { socketPath } from '../../src/server/run-file.js';

test('given a path, or a path with the scheme that other programs write, then it is that path', () => {
  for (const address of ['/run/x.sock', 'unix:///run/x.sock', 'unix:/run/x.sock'])
    assert.equal(socketPath(address), '/run/x.sock', address);
  assert.equal(socketPath('run/x.sock'), resolve('run/x.sock'));
  const { address, proxyAddress } = daemonOptions(
    '/root',
    { address: 'unix:///a', proxyAddress: 'unix:///b' },
    {},
  );
  assert.deepEqual([address, proxyAddress], ['/a', '/b']);
});

test('given another scheme, or none behind it, then it is refused, and no directory of that name is made', () => {
  for (const address of ['tcp://127.0.0.1:1234', 'http://x/y', 'unix://'])
    assert.throws(() => socketPath(address), assertKind('InvalidArgument'), address);
});
