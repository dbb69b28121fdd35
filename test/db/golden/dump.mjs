// Writes the tree that make.mjs has written to an etcd into the root: node test/db/golden/dump.mjs ETCD ROOT
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [etcd, root] = process.argv.slice(2);
const env = { ...process.env, ETCDCTL_API: '3' };
const args = ['--endpoints', etcd, 'get', '', '--prefix', '-w', 'json'];
const { kvs } = JSON.parse(execFileSync('etcdctl', args, { env, encoding: 'utf8' }));
const text = (base64) => Buffer.from(base64, 'base64').toString('utf8');
// What has an etcd lease goes with the session.
if (kvs.some(({ lease }) => lease)) throw new Error('the session lasts: try again later');
const pairs = kvs.map(({ key, value = '' }) => [text(key), text(value)]);
writeFileSync(join(root, 'tree.json'), `${JSON.stringify(pairs, undefined, 1)}\n`);
// The mirror is a copy of it.
for (const name of readdirSync(root))
  if (/\.ebbtide-etcd$/.test(name)) rmSync(join(root, name), { recursive: true });
