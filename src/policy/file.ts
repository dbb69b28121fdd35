/** A policy's file. Called by the daemon and the command line. */
import { invalidArgument } from '../errors.js';
import { readJson } from '../system/json-file.js';
import { type Policy, parsePolicy } from './policy.js';

/** The policy in a JSON file. InvalidArgument, with the file's name, for one that is not. */
export async function readPolicy(file: string): Promise<Policy> {
  const policy = await readJson('policy', file);
  try {
    parsePolicy(policy);
    return policy as Policy;
  } catch (error) {
    const { message, remedy } = error as { message: string; remedy?: string };
    throw invalidArgument(`the policy ${file} is not a policy: ${message}`, {
      object: file,
      cause: error,
      ...(remedy !== undefined && { remedy }),
    });
  }
}
