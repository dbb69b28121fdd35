/**
 * What to type for `ctr` to reach the containerd of a root, known by where the root is: nothing in it says where its socket is. Called by
 * commands.ts.
 */
import { quoted } from './quoted.js';

/** The first one that the root matches; its parts are those of the match. */
const OWNERS: readonly (readonly [root: RegExp, ctr: (...parts: string[]) => string])[] = [
  // RKE2 is not in PATH.
  [
    /^(.*\/rke2)\/agent\/containerd$/,
    (_, rke2 = '') => `${quoted(`${rke2}/bin/ctr`)} --address /run/k3s/containerd/containerd.sock`,
  ],
  [/\/agent\/containerd$/, () => 'k3s ctr'],
  [/\/k0s\/containerd$/, () => 'k0s ctr'],
  [/\/snap\/microk8s\/[^/]+\/var\/lib\/containerd$/, () => 'microk8s ctr'],
  [
    /\/\.local\/share\/docker\/containerd\/daemon$/,
    () => 'ctr --address "$XDG_RUNTIME_DIR/docker/containerd/containerd.sock"',
  ],
  [/\/containerd\/daemon$/, () => 'ctr --address /run/docker/containerd/containerd.sock'],
  [/\/\.local\/share\/containerd$/, () => 'containerd-rootless-setuptool.sh nsenter -- ctr'],
];

/** @param root containerd's own, as `Places` has it */
export function ctrOf(root: string): string {
  for (const [pattern, ctr] of OWNERS) {
    const match = pattern.exec(root);
    if (match !== null) return ctr(...match);
  }
  return 'ctr';
}
