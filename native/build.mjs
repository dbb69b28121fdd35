// Builds the addons into build/Release. Run by a clone's `npm ci` (prepare.mjs), by `npm run check` and by hand:
//
//   node native/build.mjs              build; on failure say what follows from it and exit 0
//   node native/build.mjs --strict     with warnings as errors, and for older hosts too; exit 1 on failure
//   node native/build.mjs --if-needed  nothing when the addons are newer than their sources
//   node native/build.mjs --prebuild   for the package, into prebuilds/, for each processor that it ships addons for (with Debian's
//                                      cross compiler for the others); exit 1 on failure
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const native = join(root, 'native');
const names = ['ebbtide_core', 'ebbtide_sys', 'ebbtide_zstd'].map((name) => `${name}.node`);
const flags = new Set(process.argv.slice(2));
const known = ['--strict', '--if-needed', '--prebuild'];
const isPrebuild = flags.has('--prebuild');
const release = join(native, 'build/Release');
const addons = names.map((name) => join(root, 'build/Release', name));
/** Processors that the package ships addons for, and the prefix of the tools of Debian's cross compilers. */
const processors = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };
const unknown = [...flags].filter((flag) => !known.includes(flag));
if (unknown.length > 0) {
  console.error(`native/build.mjs: unknown ${unknown.join(', ')}; use ${known.join(', ')}`);
  process.exit(2);
}
process.exit(isPrebuild ? prebuild() : build());

function build() {
  const strict = flags.has('--strict');
  if (flags.has('--if-needed') && isUpToDate()) return 0;
  const problem = compile(strict) ?? (strict ? tooNew() : undefined);
  if (problem === undefined) {
    for (const name of names) put(join(release, name), join(root, 'build/Release', name));
    return 0;
  }
  // An addon of older sources may not fit the package's JavaScript any more.
  for (const addon of addons) rmSync(addon, { force: true });
  console.error(
    strict
      ? `ebbtide: building the addons failed: ${problem}`
      : `ebbtide: the addons were not built (${problem}); the C++ core will run as WebAssembly. ` +
          'With g++ (C++20), make and python3 installed, "node native/build.mjs" builds them.',
  );
  return strict ? 1 : 0;
}

function prebuild() {
  // The last one is of this host: what a clone builds next goes on from it.
  const order = Object.keys(processors).sort((a) => (a === process.arch ? 1 : -1));
  for (const arch of order) {
    const tools = arch === process.arch ? '' : `${processors[arch]}-`;
    const problem = missing(tools) ?? compile(true, arch, tools) ?? tooNew(tools, true);
    if (problem !== undefined) {
      console.error(`ebbtide: building the addons for ${arch} failed: ${problem}`);
      return 1;
    }
    for (const name of names) put(join(release, name), join(root, `prebuilds/linux-${arch}`, name));
  }
  return 0;
}

function missing(tools) {
  const compiler = `${tools}g++`;
  if (spawnSync(compiler, ['--version'], { stdio: 'ignore' }).status === 0) return undefined;
  const name = tools === '' ? 'g++' : `g++-${tools.replaceAll('_', '-').slice(0, -1)}`;
  return `${compiler} was not found: apt-get install ${name}`;
}

/** Runs node-gyp; returns what went wrong. Its output is shown only when it fails. */
function compile(strict, arch = process.arch, tools = '') {
  const [command, ...args] = nodeGyp();
  if (command === undefined) return 'node-gyp was not found';
  const options = ['configure', 'build', `--arch=${arch}`, ...headers()];
  const cross = tools && { CC: `${tools}gcc`, CXX: `${tools}g++`, AR: `${tools}ar`, LINK: `${tools}g++` };
  const { error, status, stdout, stderr } = spawnSync(command, [...args, ...options], {
    cwd: native,
    encoding: 'utf8',
    env: {
      ...process.env,
      ...cross,
      JOBS: process.env.JOBS ?? 'max',
      GYP_DEFINES: `strict=${strict ? 1 : 0}`,
    },
    maxBuffer: 1 << 26,
  });
  if (error !== undefined) return error.message;
  if (status === 0) return undefined;
  process.stderr.write(`${stdout}${stderr}`.split('\n').slice(-60).join('\n'));
  return `node-gyp ended with ${status}`;
}

/** The command that runs node-gyp: npm names its own one, else the PATH's, else the one beside npm. */
function nodeGyp() {
  const given = process.env.npm_config_node_gyp;
  if (given !== undefined && existsSync(given)) return [process.execPath, given];
  if (spawnSync('node-gyp', ['--version'], { stdio: 'ignore' }).status === 0) return ['node-gyp'];
  const prefix = dirname(dirname(process.execPath));
  const bundled = join(prefix, 'lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js');
  return existsSync(bundled) ? [process.execPath, bundled] : [];
}

/** Node's own headers where they are installed beside it, so that nothing has to be downloaded. */
function headers() {
  const prefix = dirname(dirname(process.execPath));
  if (process.env.npm_config_nodedir !== undefined) return [];
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

/** In one step: a process may have the old one loaded. */
function put(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, `${to}.new`);
  renameSync(`${to}.new`, to);
}

/** What a host would need that has an older C library than Debian 11; undefined when nothing. */
function tooNew(tools = '', isStripped = false) {
  const files = names.map((name) => join(release, name));
  if (isStripped) spawnSync(`${tools}strip`, ['--strip-unneeded', ...files]);
  const { stdout, error } = spawnSync(`${tools}objdump`, ['-T', ...files], { encoding: 'utf8' });
  if (error !== undefined) return `objdump: ${error.message}`;
  const needed = stdout.match(/GLIBC_2\.\d+|GLIBCXX_3\.4\.\d+/g) ?? [];
  const limits = { GLIBC_2: 31, 'GLIBCXX_3.4': 28 };
  const above = needed.filter((version) => {
    const [, series, number] = /^(.*)\.(\d+)$/.exec(version);
    return Number(number) > limits[series];
  });
  return above.length === 0 ? undefined : `the addons need ${[...new Set(above)].join(', ')}`;
}

function isUpToDate() {
  if (!addons.every((file) => existsSync(file))) return false;
  const sources = readdirSync(native, { recursive: true })
    .filter((name) => /\.(cc|h)$/.test(name))
    .map((name) => join(native, name));
  const newest = Math.max(...[...sources, join(native, 'addons.gypi')].map((file) => statSync(file).mtimeMs));
  return addons.every((file) => statSync(file).mtimeMs >= newest);
}
