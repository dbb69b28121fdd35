/**
 * Temporary directories of tests. They are removed when the test file's process ends: hooks of a test run in the order they were
 * registered, so a directory removed by the first of them would come back while the others still close what is in it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const directories: string[] = [];

/** A new directory, for the rest of the process. The test (or suite) that it belongs to is named for the reader only. */
export async function tempDir(_owner?: object, name = 'ebbtide-test-'): Promise<string> {
  if (directories.length === 0) process.once('exit', removeAll);
  const directory = mkdtempSync(join(tmpdir(), name));
  directories.push(directory);
  return directory;
}

function removeAll(): void {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
}
