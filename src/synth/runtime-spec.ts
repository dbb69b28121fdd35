/**
 * An OCI runtime spec of the size that container managers store (about 4 KB). It compresses as well as a real
 * one, and no better, so that file sizes are realistic.
 */
import { idFor } from './picks.js';

export const runtimeSpecType = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID']
  .concat(['SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'])
  .map((name) => `CAP_${name}`);

const mount = (destination: string, type: string, ...options: string[]): object => ({
  destination,
  type,
  source: type,
  options: ['nosuid', ...options],
});

const hidden = ['/proc/acpi', '/proc/asound', '/proc/kcore', '/proc/keys', '/proc/latency_stats']
  .concat(['/proc/timer_list', '/proc/timer_stats', '/proc/sched_debug', '/sys/firmware'])
  .concat('/proc/scsi');

/** The spec of one container as JSON. */
export function runtimeSpec(container: string): string {
  const pod = idFor('pod of', container);
  const secret = `/var/lib/kubelet/pods/${pod.slice(0, 8)}-${pod.slice(8, 12)}-${pod.slice(12, 16)}/volumes`;
  return JSON.stringify({
    ociVersion: '1.1.0',
    process: {
      user: { uid: 1000, gid: 1000, additionalGids: [1000] },
      args: ['/usr/local/bin/service', '--listen=:8080', `--instance=${container.slice(0, 12)}`],
      env: [
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        `HOSTNAME=service-${pod.slice(0, 10)}`,
        'KUBERNETES_SERVICE_HOST=10.96.0.1',
        'KUBERNETES_SERVICE_PORT=443',
        'KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443',
        `REVISION=${idFor('revision', container).slice(0, 40)}`,
      ],
      cwd: '/app',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      apparmorProfile: 'cri-containerd.apparmor.d',
      oomScoreAdj: 985,
    },
    root: { path: 'rootfs' },
    mounts: [
      mount('/proc', 'proc', 'noexec', 'nodev'),
      mount('/dev', 'tmpfs', 'strictatime', 'mode=755', 'size=65536k'),
      mount('/dev/pts', 'devpts', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'),
      mount('/dev/mqueue', 'mqueue', 'noexec', 'nodev'),
      mount('/sys', 'sysfs', 'noexec', 'nodev', 'ro'),
      mount('/sys/fs/cgroup', 'cgroup', 'noexec', 'nodev', 'relatime', 'ro'),
      ...['/etc/hosts', '/etc/resolv.conf', '/run/secrets/token'].map((destination) => ({
        destination,
        type: 'bind',
        source: `${secret}${destination}`,
        options: ['rbind', 'rprivate', 'rw'],
      })),
    ],
    annotations: {
      'io.kubernetes.cri.container-name': 'app',
      'io.kubernetes.cri.container-type': 'container',
      'io.kubernetes.cri.sandbox-id': pod,
    },
    linux: {
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        memory: { limit: 536870912 },
        cpu: { shares: 102, quota: 100000, period: 100000 },
      },
      cgroupsPath: `kubepods-burstable-pod${pod.slice(0, 32)}.slice:cri-containerd:${container}`,
      namespaces: [
        { type: 'pid' },
        ...['ipc', 'uts', 'network'].map((type) => ({ type, path: `/proc/4711/ns/${type}` })),
        { type: 'mount' },
      ],
      maskedPaths: hidden,
      readonlyPaths: ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`),
    },
  });
}
