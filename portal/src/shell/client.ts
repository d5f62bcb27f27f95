// How answers are cached, when a question is asked again, and what a lost session does.

import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { ApiError } from "../api/http";
import { sessionEnded } from "../api/session";

const PATIENCE_MS = 5000;

export function makeClient(): QueryClient {
  const client: QueryClient = new QueryClient({
    queryCache: new QueryCache({ onError: (error) => signedOut(client, error) }),
    mutationCache: new MutationCache({ onError: (error) => signedOut(client, error) }),
    defaultOptions: {
      queries: {
        staleTime: 1000,
        // "offline" is the browser's guess about a network; the server is mostly on this machine.
        networkMode: "always",
        // A server that restarts is waited for; what it refuses is told at once.
        retry: (_count, error) => error instanceof ApiError && error.passing,
        retryDelay: (count) => Math.min(500 * 2 ** count, PATIENCE_MS),
      },
      mutations: { networkMode: "always" },
    },
  });
  return client;
}

/** A session that has ended shows the sign-in page, which says so, whichever request noticed. */
function signedOut(client: QueryClient, error: unknown): void {
  if (error instanceof ApiError && error.status === 401) sessionEnded(client);
}
