/**
 * The layout below a root: containerd's, with our own database directory. Called by open.ts and by backups.
 */
import { join } from 'node:path';

export const layout = {
  content: (root: string): string => join(root, 'io.containerd.content.v1.content'),
  snapshotter: (root: string, name: string): string => join(root, `io.containerd.snapshotter.v1.${name}`),
  database: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide'),
  /** This host's mirror of a tree in etcd. */
  mirror: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide-etcd'),
};
