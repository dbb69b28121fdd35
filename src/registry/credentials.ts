/** What a client says who it is to registries. Types only. */

/** '' where there is none. */
export interface Credentials {
  username: string;
  /** A password; without a username a refresh token. */
  secret: string;
  /** The whole value of `Authorization`. */
  header: string;
}

export type GetCredentials = (host: string, challenges: readonly string[]) => Promise<Credentials>;
