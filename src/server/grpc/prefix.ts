/** The prefix of every gRPC message: a byte that says whether it is compressed, and four bytes of length. */
export const PREFIX_BYTES = 5;
