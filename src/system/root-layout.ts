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
  /** Mount points of what the mount manager has mounted. */
  mounts: (root: string): string => join(root, 'io.containerd.mount-manager.v1.ebbtide'),
  /** The records. */
  database: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide'),
  /** This host's mirror of a tree in etcd. */
  mirror: (root: string): string => join(root, 'io.containerd.metadata.v1.ebbtide-etcd'),
};
