/** A policy's file. Called by the daemon and the command line. */
import { readFile } from 'node:fs/promises';
import { invalidArgument } from '../errors.js';
import { fsError } from '../system/system-errors.js';
import { type Policy, parsePolicy } from './policy.js';

/** The policy in a JSON file. InvalidArgument, with the file's name, for one that is not. */
export async function readPolicy(file: string): Promise<Policy> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fsError('read the policy', file, error);
  });
  try {
    const policy = JSON.parse(text) as Policy;
    parsePolicy(policy);
    return policy;
  } catch (error) {
    const { message, remedy } = error as { message: string; remedy?: string };
    const what = error instanceof SyntaxError ? 'is not JSON' : 'is not a policy';
    throw invalidArgument(`the policy ${file} ${what}: ${message}`, {
      object: file,
      cause: error,
      ...(remedy !== undefined && { remedy }),
    });
  }
}
