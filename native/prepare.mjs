// `npm ci` in a clone: builds the addons, and then the package with TypeScript. Installed packages come built.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
if (existsSync(join(root, 'node_modules/typescript/package.json'))) {
  run(process.execPath, [join(root, 'native/build.mjs'), '--if-needed']);
  run('npm', ['run', 'build']);
} else {
  console.error(
    'ebbtide: a clone is built with TypeScript, which is not installed: run npm ci --include=dev, or install the package.',
  );
  process.exit(existsSync(join(root, 'dist/src/index.js')) ? 0 : 1);
}

function run(command, args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
