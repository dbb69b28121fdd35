/** The certificates that this system trusts, as containerd finds them: an administrator's own are among them. Called by http.ts. */
import { readFile } from 'node:fs/promises';

/** Of Debian, Fedora, openSUSE, Alpine, …; the first that is there counts. */
const FILES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** PEM; `SSL_CERT_FILE` names another file. Undefined: there is none, and Node's own count. */
export async function systemRoots(): Promise<string | undefined> {
  const named = process.env.SSL_CERT_FILE;
  for (const file of named ? [named] : FILES) {
    try {
      return await readFile(file, 'utf8');
    } catch {
      // Another system's.
    }
  }
  return undefined;
}
