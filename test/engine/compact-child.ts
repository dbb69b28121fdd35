/** Compacts the store at a root, to be killed meanwhile: node compact-child.js ROOT */
import { compactStore } from '../../src/compact-store.js';

await compactStore(process.argv[2]!);
