/**
 * The layout below a root: containerd's, with our own database directory. Called by open.ts and by backups.
 */
import { join } from 'node:path';

/** Where things are below a root. */
export const layout = {
  /** The content directory. */
  content: (root: string): string => join(root, 'io.containerd.content.v1.content'),
  /** A snapshotter's directory. */
  snapshotter: (root: string, name: string): string => join(root, `io.containerd.snapshotter.v1.${name}`),
  /** The records. */
  database: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide'),
  /** This host's mirror of a tree in etcd. */
  mirror: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide-etcd'),
};
