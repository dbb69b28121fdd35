/** What stands before every gRPC message: a byte that says whether it is compressed, and four of its length. */
export const PREFIX_BYTES = 5;
