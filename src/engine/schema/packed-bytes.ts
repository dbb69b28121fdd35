/**
 * Long byte fields, deflated where that pays: what container managers store as bytes is mostly JSON (an OCI runtime
 * spec of 4 KB and more). Called by the codec only; pure.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib';

/** Shorter ones are not worth the time. */
export const PACK_BYTES_MIN = 256;
/** Longer ones would keep the thread for too long. */
export const PACK_BYTES_MAX = 128 * 1024;
/** A window as long as a usual spec: packing takes a third of the time that zlib's largest tables would. */
const tables = { windowBits: 13, memLevel: 6, level: 5 } as const;

/** Part of the file format: never change it. Later words are cheaper to refer to. */
const dictionary = Buffer.from(
  [
    '"uidMappings":[{"containerID":0,"hostID":0,"size":65536}],"gidMappings":[',
    '"sysctl":{"net.ipv4.',
    '"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],',
    '"syscalls":[{"names":["","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":',
    '"hooks":{"createRuntime":[{"path":"/usr/',
    '"rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],"noNewPrivileges":true,"terminal":true,',
    '"io.kubernetes.cri.container-name":"","io.kubernetes.cri.container-type":"container","sandbox",',
    '"io.kubernetes.cri.image-name":"docker.io/library/","io.kubernetes.cri.sandbox-id":"","io.kubernetes.cri.sandbox-log-directory":"/var/log/pods/',
    '"io.kubernetes.cri.sandbox-name":"","io.kubernetes.cri.sandbox-namespace":"default","kube-system","io.kubernetes.cri.sandbox-uid":"',
    '"KUBERNETES_SERVICE_HOST=10.96.0.1","KUBERNETES_SERVICE_PORT=443","KUBERNETES_SERVICE_PORT_HTTPS=443","KUBERNETES_PORT=tcp://10.96.0.1:443",',
    '"KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443","KUBERNETES_PORT_443_TCP_PROTO=tcp","KUBERNETES_PORT_443_TCP_PORT=443","KUBERNETES_PORT_443_TCP_ADDR=',
    '"destination":"/etc/hosts","type":"bind","source":"/var/lib/kubelet/pods/',
    '/volumes/kubernetes.io~projected/kube-api-access-',
    '/etc-hosts","options":["rbind","rprivate","rw"]},',
    '"destination":"/dev/termination-log","type":"bind","destination":"/etc/hostname","destination":"/etc/resolv.conf","source":"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/',
    '"destination":"/dev/shm","source":"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/',
    '/shm","options":["rbind","ro"]},',
    '"destination":"/var/run/secrets/kubernetes.io/serviceaccount","/run/secrets/',
    '{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},',
    '"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":,"swap":},"cpu":{"shares":102,"quota":,"period":100000},"pids":{"limit":0},"unified":{"memory.oom.group":"1"}},',
    '"cgroupsPath":"kubepods-besteffort-pod',
    '"kubepods-burstable-pod',
    '.slice:cri-containerd:',
    '"/k8s.io/',
    '"/default/',
    '"namespaces":[{"type":"pid"},{"type":"ipc","path":"/proc/',
    '/ns/ipc"},{"type":"uts","path":"/proc/',
    '/ns/uts"},{"type":"mount"},{"type":"network","path":"/proc/',
    '/ns/net"},{"type":"cgroup"}],',
    '"maskedPaths":["/proc/acpi","/proc/asound","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list","/proc/timer_stats","/proc/sched_debug","/sys/firmware","/proc/scsi"],',
    '"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}}',
    '"rootfsPropagation":"rslave","',
    '{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},',
    '{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},',
    '{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},',
    '{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},',
    '{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},',
    '{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]},',
    '"CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FSETID","CAP_FOWNER","CAP_MKNOD","CAP_NET_RAW","CAP_SETGID","CAP_SETUID","CAP_SETFCAP","CAP_SETPCAP","CAP_NET_BIND_SERVICE","CAP_SYS_CHROOT","CAP_KILL","CAP_AUDIT_WRITE"],',
    '"effective":["CAP_',
    '"permitted":["CAP_',
    '"inheritable":["CAP_',
    '"apparmorProfile":"cri-containerd.apparmor.d","oomScoreAdj":1000,"root":{"path":"rootfs","readonly":true},"hostname":"',
    '{"ociVersion":"1.0.2-dev","1.1.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[0,1,2,3,4,6,10,11,20,26,27]},"args":["/bin/sh","-c","',
    '"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","HOSTNAME=","TERM=xterm","cwd":"/","capabilities":{"bounding":["CAP_',
  ].join(''),
);

/** Deflated bytes; undefined when they would not be much shorter. */
export function packBytes(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < PACK_BYTES_MIN || bytes.length > PACK_BYTES_MAX) return undefined;
  const packed = deflateRawSync(bytes, { ...tables, dictionary });
  return packed.length < bytes.length - bytes.length / 8 ? packed : undefined;
}

/** The bytes that were packed, `size` of them; undefined when they are damaged. */
export function unpackBytes(packed: Uint8Array, size: number): Uint8Array | undefined {
  if (size < PACK_BYTES_MIN || size > PACK_BYTES_MAX) return undefined;
  try {
    const bytes = inflateRawSync(packed, {
      dictionary,
      maxOutputLength: size,
      chunkSize: Math.max(size, 1024),
    });
    return bytes.length === size ? new Uint8Array(bytes) : undefined;
  } catch {
    return undefined;
  }
}
