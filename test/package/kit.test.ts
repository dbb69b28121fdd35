/**
 * The files of packaging/ fit this version: their metrics, verbs and options are there, and systemd understands the units.
 * `npm run test:conformance -- kit` installs and starts them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { createProgram } from '../../src/cli/program.js';
import { daemonOptions, readConfig } from '../../src/server/config.js';
import { MAIN } from '../cli/support.js';
import { repository } from '../coverage/consumer.js';
import { world } from '../server/world.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';

const packaging = join(repository, 'packaging');
const read = (name: string): string => readFileSync(join(packaging, name), 'utf8');
const rules = read('prometheus/ebbtide.rules.yml');
const dashboard = read('grafana/ebbtide.json');

test('given the alerts and the dashboard, then every metric in them is one that a daemon serves', async (t) => {
  const { daemon } = await world(t, { metrics: '127.0.0.1:0' });
  const page = await (await fetch(`http://${daemon.metricsAddress}/metrics`)).text();
  const served = new Set(Array.from(page.matchAll(/^# HELP (\S+)/gm), ([, name]) => name));
  const queries = [...rules.matchAll(/expr: (.*)/g), ...dashboard.matchAll(/"expr": (.*)/g)].map(
    ([, text]) => text!,
  );
  const used = new Set(
    queries
      .flatMap((text) => text.match(/\b(?:ebbtide|nodejs|process)_\w+/g) ?? [])
      .map((name) => name.replace(/_bucket$/, '')),
  );
  assert.ok(used.size > 25, String(used.size));
  assert.deepEqual(
    [...used].filter((name) => !served.has(name)),
    [],
  );
  assert.deepEqual(
    [...served].filter((name) => !/^(ebbtide|nodejs|process)_/.test(name ?? '')),
    [],
  );
});

test('given what the alerts advise, then the command has these verbs', async () => {
  const verbs = new Set([...commandsIn(await createProgram())].filter(isLeaf).map(pathOf));
  const advised = Array.from(rules.matchAll(/\bebbtide ([a-z]+)(?= -|;|"| frees)/g), ([, verb]) => verb!);
  assert.ok(advised.length > 5);
  assert.deepEqual(
    advised.filter((verb) => !verbs.has(verb)),
    [],
  );
});

test('given the units, then systemd has nothing to say of them, and the daemon accepts their command line', {
  skip: missingTools(['systemd-analyze']) ?? false,
}, async (t) => {
  const dir = await tempDir(t);
  const units = ['ebbtide.socket', 'ebbtide.service'].map((name) => {
    const path = join(dir, name);
    writeFileSync(
      path,
      read(`systemd/${name}`)
        .replace('/usr/bin/ebbtide', MAIN)
        .replace(/^Documentation=.*\n/m, ''),
    );
    return path;
  });
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
  assert.deepEqual([status, stdout, stderr], [0, '', '']);
  const given = await readConfig(join(packaging, 'config.json'));
  assert.equal(daemonOptions('/var/lib/ebbtide', given, {}).metrics, '127.0.0.1:9464');
  const line = /^ExecStart=\/usr\/bin\/ebbtide serve (.*)$/m.exec(read('systemd/ebbtide.service'))?.[1];
  const { commands } = await createProgram(['serve']);
  const serve = commands.find((command) => command.name() === 'serve')!;
  const known = [...serve.options, ...serve.parent!.options].map(({ long }) => long);
  assert.deepEqual(
    line!.split(' ').filter((word) => word.startsWith('--') && !known.includes(word)),
    [],
  );
});
