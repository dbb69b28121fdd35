/** A program that has this package installed: compiled and run by name, through what package.json exports. */
import { execFile } from 'node:child_process';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { tempDir } from '../support/db.js';

const run = promisify(execFile);
/** Where the compiled files are: `dist`, or wherever this build went. */
const built = fileURLToPath(new URL('../../', import.meta.url));
export const repository = fileURLToPath(new URL('../../../', import.meta.url));

/** Strict, and without `skipLibCheck`: what a user's compiler sees of our declarations must be sound too. */
const compilerOptions = {
  target: 'es2023',
  lib: ['es2023', 'esnext.disposable'],
  module: 'nodenext',
  strict: true,
  noUncheckedIndexedAccess: false,
  types: ['node'],
};

/** A project in a temporary directory with the package under `node_modules`. */
export async function consumer(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const dir = await tempDir(t, 'ebbtide-consumer-');
  const installed = join(dir, 'node_modules', 'ebbtide');
  await mkdir(join(dir, 'node_modules', '@types'), { recursive: true });
  await mkdir(installed);
  await cp(join(repository, 'package.json'), join(installed, 'package.json'));
  await symlink(built, join(installed, 'dist'));
  await symlink(
    join(repository, 'node_modules', '@types', 'node'),
    join(dir, 'node_modules', '@types', 'node'),
  );
  await writeFile(join(dir, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  await writeFile(join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  return dir;
}

/** What the compiler has to say; '' when all is well. Writes the JavaScript beside the sources. */
export async function compile(dir: string): Promise<string> {
  const tsc = join(repository, 'node_modules', 'typescript', 'bin', 'tsc');
  try {
    await run(process.execPath, [tsc, '-p', dir], { cwd: dir });
    return '';
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }; // what execFile's errors carry
    return `${stdout ?? ''}${stderr ?? ''}`;
  }
}

/** Runs a compiled file with this Node, or another command; its standard output. Rejects with what it said when it fails. */
export async function execute(
  dir: string,
  file: string,
  node: readonly string[] = [process.execPath],
): Promise<string> {
  const [program = '', ...args] = node;
  const { stdout } = await run(program, [...args, join(dir, file)], { cwd: dir, timeout: 120_000 });
  return stdout;
}
