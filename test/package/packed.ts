/** The package as npm packs it, installed into an empty folder without running any script, as npm 12 does by default. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { compile, execute, repository } from '../coverage/consumer.js';
import { readmeExample, readmePrinted } from '../coverage/readme.js';

const run = promisify(execFile);
export const NO_NETWORK = /ENOTCACHED|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|network/;
const INSTALL_MS_MAX = 300_000;

export interface Manifest {
  name: string;
  scripts: Record<string, string>;
  files: string[];
}

/** A release is built from nothing (`prepack`); here, files may be left whose source is gone. */
function isStale(file: string): boolean {
  const module = /^(.*)\/dist(\/src\/(?!bundle\/).*?)(\.d\.ts|\.js|\.js\.map)$/.exec(file);
  return module !== null && !existsSync(`${module[1]}${module[2]}.ts`);
}

/** The tarball of what a release would be made of, with the addons of `prebuilds`, by processor. */
export async function pack(dir: string, prebuilds: Readonly<Record<string, string>>): Promise<string> {
  const stage = join(dir, 'stage');
  const { files } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as Manifest;
  // Of dist/ only what is packed: other tests write beside it.
  const packed = files.filter((file) => !file.startsWith('!'));
  const folders = new Set(packed.map((file) => /^dist\/src|^\w+/.exec(file)?.[0] ?? file));
  folders.delete('prebuilds');
  for (const name of ['package.json', 'README.md', 'LICENSE', ...folders]) {
    const filter = (from: string): boolean => from !== join(repository, 'native/build') && !isStale(from);
    cpSync(join(repository, name), join(stage, name), { recursive: true, filter });
  }
  for (const [arch, from] of Object.entries(prebuilds))
    for (const name of readdirSync(from).filter((name) => name.endsWith('.node')))
      cpSync(join(from, name), join(stage, `prebuilds/linux-${arch}`, name));
  const { stdout } = await run('npm', ['pack', '--ignore-scripts', '--pack-destination', dir], {
    cwd: stage,
  });
  rmSync(stage, { recursive: true });
  return join(dir, stdout.trim().split('\n').at(-1)!);
}

/**
 * A project that has the tarball, and what it depends on: from npm's cache, or from the registry. Rejects with npm's words
 * (`stderr`). `arch`: of the host that it is for.
 */
export async function installed(dir: string, tarball: string, arch?: string): Promise<string> {
  const project = join(dir, `project-${arch ?? process.arch}`);
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  const options = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'];
  const host = arch === undefined ? [] : [`--cpu=${arch}`, '--os=linux', '--libc=glibc'];
  await run('npm', ['install', ...options, ...host, tarball], { cwd: project, timeout: INSTALL_MS_MAX });
  return project;
}

/** The README's example, compiled in the project; runs it with a command that is Node, and returns which core it had. */
export async function example(
  dir: string,
  project: string,
): Promise<(node?: readonly string[]) => Promise<string>> {
  const types = join(project, 'node_modules/@types/node');
  rmSync(types, { recursive: true, force: true });
  mkdirSync(dirname(types), { recursive: true });
  symlinkSync(join(repository, 'node_modules/@types/node'), types);
  const prelude =
    'import { coreInfo } from "ebbtide/backend";\nconsole.log(process.version, process.arch, ...Object.values(coreInfo()));\n';
  const place = join(dir, `run-${project.split('-').at(-1)}`);
  writeFileSync(join(project, 'example.ts'), `${prelude}${await readmeExample(place)}`);
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'es2023',
        lib: ['es2023', 'esnext.disposable'],
        module: 'nodenext',
        types: ['node'],
      },
    }),
  );
  assert.equal(await compile(project), '');
  return async (node) => {
    const printed = await execute(project, 'example.js', node);
    readmePrinted(printed);
    rmSync(join(place, 'root'), { recursive: true, force: true });
    return printed.split('\n')[0] ?? '';
  };
}
