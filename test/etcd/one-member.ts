/**
 * A cluster of one member for all test files of a process, each of which uses trees of its own. A test that pauses the
 * member lets it go on; one that kills it, or that needs another one, starts its own.
 */
import { after, before } from 'node:test';
import { Cluster } from './servers.js';

export let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
});
after(() => cluster.stop());
