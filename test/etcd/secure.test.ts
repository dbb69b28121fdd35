/** Users and passwords, TLS with client certificates, and that no secret shows in an error. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type EtcdConfig, etcdSettings } from '../../src/engine/etcd/client/options.js';
import type { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from '../support/db.js';
import { LoopbackProxy } from './proxy.js';
import { Cluster } from './servers.js';

const open = (etcd: EtcdConfig, warn: (text: string) => void = () => undefined): Promise<EtcdEngine> =>
  openEtcdEngine({ indexer: suiteIndexer, graph: createGraph(), etcd, warn });

/** A certificate authority with a server's and a client's certificate. */
async function certificates(t: TestContext): Promise<string> {
  const dir = await tempDir(t);
  const ssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'ignore' });
  ssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    '/CN=ca',
    '-days',
    '2',
  );
  for (const name of ['server', 'client']) {
    writeFileSync(
      join(dir, `${name}.ext`),
      'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n',
    );
    ssl(
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    );
    ssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-out',
      `${name}.crt`,
      '-days',
      '2',
      '-extfile',
      `${name}.ext`,
    );
  }
  return dir;
}

test('given etcd with users, when a host gives the right password, then it works; the wrong one shows in no error', async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.stop());
  cluster.etcdctl('user', 'add', 'root:r00t');
  cluster.etcdctl('user', 'add', 'ebb:s3cret-word');
  cluster.etcdctl('role', 'add', 'tree');
  cluster.etcdctl('role', 'grant-permission', '--prefix=true', 'tree', 'readwrite', 'mine/');
  cluster.etcdctl('user', 'grant-role', 'ebb', 'tree');
  cluster.etcdctl('user', 'grant-role', 'root', 'root');
  cluster.etcdctl('auth', 'enable');
  const config = { ...cluster.config({ prefix: 'mine/' }), username: 'ebb', password: 's3cret-word' };
  const engine = await open(config);
  t.after(() => engine.close());
  await engine.update((tx) => tx.put(key('images', 'ns', 'a'), { size: 1 }));
  assert.deepEqual(await engine.view((tx) => tx.get(key('images', 'ns', 'a'))), { size: 1 });
  const unlock = await engine.locks.lock('l');
  await unlock();

  // What a user may not do now and then is no sign that etcd has lost something.
  const proxy = await LoopbackProxy.start(cluster.urls[0]!);
  t.after(() => proxy.close());
  const warnings: string[] = [];
  const warned = await open({ ...config, hosts: [proxy.url], hostId: 'warned' }, (text) =>
    warnings.push(text),
  );
  t.after(() => warned.close());
  const role = (...args: string[]) => cluster.etcdctl('--user', 'root:r00t', 'role', ...args);
  role('revoke-permission', '--prefix=true', 'tree', 'mine/');
  proxy.reset();
  await new Promise((resolve) => setTimeout(resolve, 700));
  role('grant-permission', '--prefix=true', 'tree', 'readwrite', 'mine/');
  await engine.update((tx) => tx.put(key('images', 'ns', 'b'), { size: 2 }));
  assert.deepEqual(await warned.view((tx) => tx.get(key('images', 'ns', 'b'))), { size: 2 });
  assert.deepEqual(
    warnings.filter((text) => /compacted/.test(text)),
    [],
  );

  const failures = [
    { ...config, password: 'wr0ng-word' },
    { ...config, prefix: 'others/' },
    { ...config, username: 'nobody', password: 'wr0ng-word' },
  ];
  for (const [i, failing] of failures.entries()) {
    await assert.rejects(open(failing), (error: Error) => {
      assertKind('FailedPrecondition')(error);
      assert.doesNotMatch(
        `${error.message} ${error.stack} ${JSON.stringify(error)}`,
        /wr0ng|s3cret/,
        String(i),
      );
      return true;
    });
  }
});

test('given etcd with TLS, when a host has a certificate, then it works; without one it gets an error within the dial timeout', async (t) => {
  const dir = await certificates(t);
  const file = (name: string): string => join(dir, name);
  const cluster = await Cluster.start(1, {
    tls: { ca: file('ca.crt'), cert: file('client.crt'), key: file('client.key') },
    extra: [
      ...['--cert-file', file('server.crt'), '--key-file', file('server.key')],
      ...['--client-cert-auth', '--trusted-ca-file', file('ca.crt')],
    ],
  });
  t.after(() => cluster.stop());
  const byName = { ca: file('ca.crt'), cert: file('client.crt'), key: file('client.key') };
  const byText = {
    ca: readFileSync(byName.ca, 'utf8'),
    cert: readFileSync(byName.cert),
    key: readFileSync(byName.key),
  };
  for (const tls of [byName, byText]) {
    const engine = await open({ ...cluster.config(), tls });
    await engine.update((tx) => tx.put(key('images', 'ns', 'a'), { size: 1 }));
    await engine.close();
  }
  const bare = cluster.config({ dialTimeoutMs: 700 });
  await assert.rejects(open({ ...bare, tls: { ca: byName.ca } }), assertKind('Unavailable'));
  await assert.rejects(
    open({ ...bare, hosts: cluster.urls.map((url) => url.replace('https', 'http')) }),
    assertKind('Unavailable'),
  );
});

test('given options that cannot work, when settings are made of them, then each is named and no secret is repeated', () => {
  const hosts = 'http://127.0.0.1:2379';
  const bad: [EtcdConfig, RegExp][] = [
    [{ hosts: '' }, /at least one member/],
    [{ hosts: [] }, /at least one member/],
    [{ hosts: 'localhost:2379' }, /not of the form/],
    [{ hosts: 'http://user:p4ss@h:1' }, /holds a user or password/],
    [{ hosts: ['http://a:1', 'https://b:1'] }, /mix/],
    [{ hosts, prefix: 'tree' }, /prefix "tree"/],
    [{ hosts, username: 'u' }, /together/],
    [{ hosts, password: 'p4ss' }, /together/],
    [{ hosts: 'https://h:1', tls: { ca: '/no/such/file' } }, /tls.ca cannot be read: ENOENT/],
    [{ hosts: 'https://h:1', tls: { cert: 'x' } }, /together/],
    [{ hosts, requestTimeoutMs: 0 }, /requestTimeoutMs/],
    [{ hosts, sessionTtlSeconds: 1 }, /sessionTtlSeconds/],
    [{ hosts, hostId: 'a/b' }, /hostId/],
    [{ hosts, endpoints: 'x' } as EtcdConfig, /no option "endpoints"/],
  ];
  for (const [config, text] of bad) {
    assert.throws(
      () => etcdSettings(config),
      (error: Error) => {
        assertKind('InvalidArgument')(error);
        assert.match(error.message, text);
        assert.doesNotMatch(error.message, /p4ss/);
        return true;
      },
    );
  }
  const settings = etcdSettings({ hosts: 'http://a, http://b:1' }, '/var/lib/x');
  assert.deepEqual(settings.hosts, ['http://a:2379', 'http://b:1']);
  assert.match(settings.hostId, /:.var.lib.x$/);
});
