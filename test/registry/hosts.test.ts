/** Which host is asked for a name: by default, and by a directory of hosts. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { type HostOptions, hostsOf } from '../../src/registry/hosts.js';
import { tempDir } from '../support/temp.js';
import { fetched, stage } from './support.js';

const addresses = async (name: string, options: HostOptions = {}): Promise<string[]> =>
  (await hostsOf(name, options)).map(
    ({ scheme, host, path, tls, fallback }) =>
      `${scheme}://${host}${path}${tls?.insecure ? ' insecure' : ''}${fallback ? ' fallback' : ''}`,
  );

test('given no directory, then hosts are asked over TLS, local ones with a fallback, unless the client says otherwise', async () => {
  const table: [string, HostOptions, string][] = [
    ['example.com', {}, 'https://example.com/v2'],
    ['docker.io', {}, 'https://registry-1.docker.io/v2'],
    ['example.com:5000', { defaultScheme: 'http' }, 'http://example.com:5000/v2'],
    ['localhost', {}, 'https://localhost/v2 insecure'],
    ['localhost:443', {}, 'https://localhost:443/v2 insecure'],
    ['localhost:80', {}, 'http://localhost:80/v2'],
    ['localhost:5000', {}, 'https://localhost:5000/v2 insecure fallback'],
    ['127.0.0.1:5000', {}, 'https://127.0.0.1:5000/v2 insecure fallback'],
    ['[::1]:5000', {}, 'https://[::1]:5000/v2 insecure fallback'],
    ['localhost:5000', { defaultScheme: 'http' }, 'http://localhost:5000/v2'],
    ['localhost.example.com:5000', {}, 'https://localhost.example.com:5000/v2'],
    ['127.example.com', {}, 'https://127.example.com/v2'],
  ];
  for (const [name, options, address] of table)
    assert.deepEqual(await addresses(name, options), [address], name);
});

async function written(dir: string, name: string, files: Record<string, string>): Promise<void> {
  await mkdir(join(dir, name), { recursive: true });
  for (const [file, text] of Object.entries(files)) await writeFile(join(dir, name, file), text);
}

test('given a directory of hosts, then its hosts come in their order, and what a name has not got is the default', async (t) => {
  const hostsDirectory = await tempDir(t);
  await written(hostsDirectory, 'example.com', {
    'ca.pem': 'CA',
    'hosts.toml': `
      server = "https://upstream.example.com"
      [host."https://second.example.com/some/path"]
      capabilities = ["pull"]
      ca = "ca.pem"
      dial_timeout = "2s"
      [host."http://first.example.com:8080"]
      override_path = true
      skip_verify = true
      [host."http://first.example.com:8080".header]
      X-One = ["a", "b"]
      [host."plain.example.com/v2/"]
    `,
  });
  assert.deepEqual(await addresses('example.com', { hostsDirectory }), [
    'https://second.example.com/some/path/v2',
    'https://first.example.com:8080 insecure fallback',
    'https://plain.example.com/v2',
    'https://upstream.example.com/v2',
  ]);
  const [second, first] = await hostsOf('example.com', { hostsDirectory });
  assert.deepEqual([...second!.capabilities], ['pull']);
  assert.deepEqual(second!.tls, { ca: ['CA'], pairs: [], insecure: false, insecureElsewhere: false });
  assert.equal(second!.connectMs! >= 2000, true);
  assert.equal(first!.tls!.insecureElsewhere, true);
  const [local] = await hostsOf('localhost:5000', {});
  assert.equal(local!.tls!.insecureElsewhere, false);
  assert.deepEqual(first!.headers, { 'x-one': ['a', 'b'] });
  assert.deepEqual(await addresses('other.example.com', { hostsDirectory }), [
    'https://other.example.com/v2',
  ]);

  await written(hostsDirectory, 'certificates.example.com_5000_', {
    'a.crt': 'A',
    'c.cert': 'C',
    'c.key': 'K',
  });
  const [certificates] = await hostsOf('certificates.example.com:5000', { hostsDirectory });
  assert.deepEqual(certificates!.tls, {
    ca: ['A'],
    pairs: [{ cert: 'C', key: 'K' }],
    insecure: false,
    insecureElsewhere: false,
  });

  await written(hostsDirectory, '_default', { 'hosts.toml': '[host."mirror.example.com"]' });
  assert.deepEqual(await addresses('docker.io', { hostsDirectory }), [
    'https://mirror.example.com/v2',
    'https://registry-1.docker.io/v2',
  ]);
});

test('given a file that is damaged, or names what is not there, then no host is asked', async (t) => {
  const hostsDirectory = await tempDir(t);
  for (const [text, kind] of [
    ['server = ', 'InvalidArgument'],
    ['server = 5', 'InvalidArgument'],
    ['[host."ftp://x"]\nskip_verify = 1', 'InvalidArgument'],
    ['[host."x"]\ncapabilities = ["fly"]', 'InvalidArgument'],
    ['[host."x"]\ndial_timeout = "soon"', 'InvalidArgument'],
    ['[host."x"]\nheader = 5', 'InvalidArgument'],
    ['[host."x"]\nclient = [["a","b","c"]]', 'InvalidArgument'],
    ['[host."x"]\nca = "missing.pem"', 'FailedPrecondition'],
    [`x = "${'x'.repeat(1_100_000)}"`, 'FailedPrecondition'],
  ] as const) {
    await written(hostsDirectory, 'example.com', { 'hosts.toml': text });
    await assert.rejects(hostsOf('example.com', { hostsDirectory }), { kind }, text.slice(0, 50));
  }
});

test('given certificates that are none, when an image is fetched, then it is an error that names the host', async (t) => {
  const s = await stage(t);
  const hostsDirectory = await tempDir(t);
  for (const files of [{ 'a.cert': 'none' }, { 'a.cert': 'none', 'a.key': 'none' }]) {
    await written(hostsDirectory, 'registry.example.com', files);
    const options = { hostsDirectory, defaultScheme: undefined, reference: 'registry.example.com/app:1' };
    await assert.rejects(fetched(s, options), {
      kind: 'FailedPrecondition',
      message: /certificates for registry.example.com cannot be used/,
    });
  }
});

test('given a mirror, when an image is fetched, then it is told the name, and the next host is asked for what it has not got', async (t) => {
  const mirror = await stage(t);
  const s = await stage(t);
  const hostsDirectory = await tempDir(t);
  await written(hostsDirectory, 'registry.example.com', {
    'hosts.toml': `server = "http://${s.registry.host}"\n[host."http://${mirror.registry.host}"]\n`,
  });
  const { digest } = s.image.layers[0]!;
  mirror.registry.trick = (_request, response, { path }) => {
    if (!path.includes(digest)) return false;
    response.writeHead(404).end();
    return true;
  };
  await fetched(s, { hostsDirectory, defaultScheme: undefined, reference: 'registry.example.com/app:1' });
  assert.equal(
    mirror.registry.asked.every(({ path }) => path.endsWith('?ns=registry.example.com')),
    true,
  );
  assert.deepEqual(
    s.registry.asked.map(({ path }) => path),
    [`/v2/app/blobs/${digest}?ns=registry.example.com`],
  );
});
