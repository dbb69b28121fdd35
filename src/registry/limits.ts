/** What a registry may make a client keep, read or wait for. Everything beyond is an error that names it. */
export interface RegistryLimits {
  /** Milliseconds for a connection, with its TLS handshake. */
  connectMs: number;
  /** Milliseconds for the head of a response, and between two pieces of its body. */
  idleMs: number;
  /** Bytes of a response's head. */
  headerBytes: number;
  /** Redirects that one request follows. */
  redirects: number;
  /** Requests that are sent again for one: a token, a busy registry, a failure. */
  attempts: number;
  /** Times that a blob's transfer may break off without `progressBytes` in between. */
  breaks: number;
  progressBytes: number;
  /** Milliseconds before a request is sent again, the first time; doubled each time. */
  pauseMs: number;
  /** The most that a registry's `Retry-After` is obeyed, in milliseconds. */
  pauseMsMax: number;
}

export const registryLimits: RegistryLimits = {
  connectMs: 30_000,
  idleMs: 30_000,
  headerBytes: 32 * 1024,
  redirects: 10,
  attempts: 5,
  breaks: 3,
  progressBytes: 2 ** 20,
  pauseMs: 200,
  pauseMsMax: 10_000,
};

/** Bytes of a response with a token, and of the token. */
export const TOKEN_ANSWER_BYTES_MAX = 64 * 1024;
export const TOKEN_BYTES_MAX = 16 * 1024;
/** Bytes of a failure's body that are read for its reason, and characters that are shown. */
export const FAILURE_BYTES_MAX = 8 * 1024;
export const FAILURE_SHOWN_MAX = 300;
/** Bytes of what a host is configured by. */
export const HOST_FILE_BYTES_MAX = 2 ** 20;
/** Of a directory, or a hosts.toml. */
export const HOSTS_MAX = 100;
