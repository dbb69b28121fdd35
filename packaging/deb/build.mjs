// Makes the Debian package of a built clone: node packaging/deb/build.mjs DIRECTORY
//
// The clone has been built (`npm ci`). The package has the command with what its production dependencies need to run, the
// addons, the units, the manual page and the completion scripts. The same clone gives the same package, about which
// Debian's lintian has nothing to say (test/package/deb.test.ts).
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const packaging = join(repository, 'packaging');
const [target] = process.argv.slice(2);
if (target === undefined) fail('usage: node packaging/deb/build.mjs DIRECTORY', 2);
const command = 'dist/src/bundle/main.js';
const addons = join(repository, 'build/Release');
for (const path of [join(repository, command), addons]) {
  if (!existsSync(path)) fail(`${path} does not exist: run npm ci`, 1);
}

const { version, description } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8'));
const architecture = read('dpkg', ['--print-architecture']).trim();
const maintainer = 'the ebbtide maintainers <maintainers@ebbtide.invalid>';
const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? read('git', ['log', '-1', '--format=%ct']));
const stage = mkdtempSync(join(tmpdir(), 'ebbtide-deb-'));
process.on('exit', () => rmSync(stage, { recursive: true, force: true }));

program('usr/lib/ebbtide');
link('usr/bin/ebbtide', `../lib/ebbtide/${command}`);
for (const unit of ['ebbtide.service', 'ebbtide.socket']) {
  copy(join(packaging, 'systemd', unit), `lib/systemd/system/${unit}`);
}
copy(join(packaging, 'config.json'), 'etc/ebbtide/config.json');
copy(join(packaging, 'grafana/ebbtide.json'), 'usr/share/ebbtide/grafana/ebbtide.json');
copy(join(packaging, 'prometheus/ebbtide.rules.yml'), 'usr/share/ebbtide/prometheus/ebbtide.rules.yml');
copy(join(packaging, 'deb/copyright'), 'usr/share/doc/ebbtide/copyright');
write('usr/share/doc/ebbtide/changelog.gz', gzip(changelog()));
compressed('CHANGELOG.md', 'usr/share/doc/ebbtide/CHANGELOG.md.gz');
compressed('docs/ebbtide.1', 'usr/share/man/man1/ebbtide.1.gz');
for (const [shell, path] of [
  ['bash', 'usr/share/bash-completion/completions/ebbtide'],
  ['zsh', 'usr/share/zsh/vendor-completions/_ebbtide'],
  ['fish', 'usr/share/fish/vendor_completions.d/ebbtide.fish'],
]) {
  write(path, read(process.execPath, [join(repository, command), 'completion', shell]));
}
control();
console.log(pack());

/** The command with all that it loads: a part of what npm's package has. */
function program(to) {
  for (const name of ['package.json', 'docs/ebbtide.schema.json', 'native/wasm/ebbtide_core.wasm']) {
    copy(join(repository, name), join(to, name));
  }
  const isNeeded = (path) => !/\.(map|d\.ts|cache)$/.test(path);
  tree('dist/src/bundle', to, isNeeded);
  tree('src/server/api', to, (path) => !path.endsWith('.md'));
  for (const name of readdirSync(addons).filter((name) => name.endsWith('.node'))) {
    copy(join(addons, name), join(to, `prebuilds/linux-${process.arch}`, name));
  }
  const listed = read('npm', ['ls', '--omit=dev', '--all', '--parseable']).trim().split('\n').slice(1);
  for (const path of listed) tree(relative(repository, path), to, isLoaded, true);
  for (const name of readdirSync(join(stage, to), { recursive: true }).filter((name) =>
    name.endsWith('.node'),
  ))
    execFileSync('strip', ['--strip-unneeded', join(stage, to, name)]);
  // `env` is not needed where Node has a place.
  const main = join(to, command);
  write(main, readFileSync(join(stage, main), 'utf8').replace(/^#!.*? node /, '#!/usr/bin/node '));
}

/** Whether a file or folder of a dependency is needed at run time, by Node and glibc on this processor, or as its license. */
function isLoaded(path) {
  const name = basename(path);
  const isFolder = statSync(path).isDirectory();
  if (name.startsWith('.') || /\/prebuilds\/[^/]+$/.test(path)) return name === `linux-${process.arch}`;
  if (isFolder) return !/^(tests?|bench(marks?)?|docs|examples?|tools)$/.test(name);
  if (/^(licen[cs]e|copying|notice|copyright)/i.test(name)) return true;
  return /\.([cm]?js|json|node|proto|wasm)$/.test(name) && !/\.musl\.node$/.test(name);
}

/** Debian's form; what changed is in CHANGELOG.md. */
function changelog() {
  const date = new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
  const entry = '  * What changed is in /usr/share/doc/ebbtide/CHANGELOG.md.gz.';
  return `ebbtide (${version}) unstable; urgency=medium\n\n${entry}\n\n -- ${maintainer}  ${date}\n`;
}

/** A folder of the clone; `own`: without the node_modules in it, whose packages are listed themselves. */
function tree(from, to, isNeeded, own = false) {
  const start = join(repository, from);
  const filter = (path) => isNeeded(path) && !(own && relative(start, path) === 'node_modules');
  cpSync(start, join(stage, to, from), { recursive: true, filter });
}

function control() {
  const conffiles = ['/etc/ebbtide/config.json'];
  write('DEBIAN/conffiles', `${conffiles.join('\n')}\n`);
  const kib = Math.ceil(sizeOf(stage) / 1024);
  write(
    'DEBIAN/control',
    `Package: ebbtide
Version: ${version}
Architecture: ${architecture}
Maintainer: ${maintainer}
Installed-Size: ${kib}
Depends: nodejs (>= 20.19), libc6 (>= 2.31), libstdc++6
Suggests: prometheus
Section: admin
Priority: optional
Description: ${description.split(':')[0]}
${wrapped(`${description.replace(/^[^:]*: /, 'For ')}.`)}
 The daemon speaks containerd's API for everything but running containers.
`,
  );
  for (const name of ['postinst', 'prerm', 'postrm']) {
    copy(join(packaging, 'deb', name), `DEBIAN/${name}`);
    chmodSync(join(stage, 'DEBIAN', name), 0o755);
  }
}

function pack() {
  const file = join(resolve(target), `ebbtide_${version}_${architecture}.deb`);
  mkdirSync(dirname(file), { recursive: true });
  // Modes of a clone depend on the umask of whoever made it.
  for (const path of readdirSync(stage, { recursive: true }).map((name) => join(stage, String(name)))) {
    const stat = statSync(path);
    const isProgram = stat.isDirectory() || isScript(path) || dirname(path) === join(stage, 'DEBIAN');
    const isData = /DEBIAN\/(control|conffiles)$/.test(path);
    chmodSync(path, isProgram && !isData ? 0o755 : 0o644);
    lutimesSync(path, epoch, epoch);
  }
  chmodSync(stage, 0o755);
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(epoch) };
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', stage, file], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return file;
}

function isScript(path) {
  return readFileSync(path).subarray(0, 2).toString('latin1') === '#!';
}

/** A paragraph of a description. */
function wrapped(text) {
  return text.replace(/(.{1,78})( |$)/g, ' $1\n').trimEnd();
}

function sizeOf(directory) {
  let bytes = 0;
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += statSync(join(entry.parentPath ?? entry.path, entry.name)).size;
  }
  return bytes;
}

function copy(from, to) {
  mkdirSync(dirname(join(stage, to)), { recursive: true });
  cpSync(from, join(stage, to));
}
function write(to, content) {
  mkdirSync(dirname(join(stage, to)), { recursive: true });
  writeFileSync(join(stage, to), content);
}
function compressed(from, to) {
  write(to, gzip(readFileSync(join(repository, from))));
}
function gzip(content) {
  return gzipSync(content, { level: 9 });
}
function link(from, to) {
  mkdirSync(dirname(join(stage, from)), { recursive: true });
  symlinkSync(to, join(stage, from));
}
function read(program, args) {
  return execFileSync(program, args, { cwd: repository, encoding: 'utf8', maxBuffer: 2 ** 26 });
}
function fail(message, code) {
  console.error(`${basename(import.meta.filename)}: ${message}`);
  process.exit(code);
}
