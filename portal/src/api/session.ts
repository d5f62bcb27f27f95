// Who is signed in. The secret is in a cookie that no script can read; the page only knows the key's name.

import { type QueryClient, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { ApiError, get, post, remove } from "./http";
import type { Session } from "./types";

const SESSIONS = "/v1/stillroom/sessions";
const CURRENT = `${SESSIONS}/current`;
/** What the printed address ends with, before its token. */
export const TOKEN = "#signin=";
const SESSION = ["session"];
/** Why the printed address signed nobody in. */
const REFUSED = ["sign-in-refused"];
/** Whether somebody was signed in until the server said otherwise. */
const ENDED = ["session-ended"];
const KEPT = [SESSION, REFUSED, ENDED].map(([part]) => part);

/** What the server said when it refused the printed address's token, if it did. */
export const useRefused = () => useQueryClient().getQueryData<ApiError>(REFUSED);

/** Whether the page to sign in is shown because a session has ended by itself. */
export const useHasEnded = () => useQueryClient().getQueryData<boolean>(ENDED) ?? false;

/** For a request that was refused because nobody is signed in any more. */
export function sessionEnded(client: QueryClient): void {
  if (client.getQueryData(SESSION)) client.setQueryData(ENDED, true);
  client.setQueryData(SESSION, null);
}

export function useSession() {
  return useQuery({
    queryKey: SESSION,
    queryFn: ({ client }) => current(client),
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export function useSignIn() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (key: string) => post<Session>(SESSIONS, { key }),
    onSuccess: (session) => {
      for (const queryKey of [REFUSED, ENDED]) client.removeQueries({ queryKey });
      client.setQueryData(SESSION, session);
    },
  });
}

/** Nobody is signed in: what was shown is forgotten, for whoever comes next may be of another project. */
export function useForgotten(): void {
  const client = useQueryClient();
  useEffect(() => {
    client.removeQueries({ predicate: ({ queryKey: [part] }) => !KEPT.includes(String(part)) });
  }, [client]);
}

export function useSignOut() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => remove(CURRENT),
    // A session that has ended already is one less to end, which the client tells by itself.
    onSuccess: () => client.setQueryData(SESSION, null),
  });
}

/** The session of the cookie, else the one that the printed address's token begins; null for neither. */
async function current(client: QueryClient): Promise<Session | null> {
  const token = takeToken();
  if (token) {
    try {
      return await post<Session>(SESSIONS, { token });
    } catch (error) {
      if (!(error instanceof ApiError) || error.passing) {
        // For when the server can be reached again.
        history.replaceState(null, "", `${location.pathname}${location.search}${TOKEN}${encodeURIComponent(token)}`);
        throw error;
      }
      // It was used already, which is no matter when its session is still there; else it is said.
      client.setQueryData(REFUSED, error);
    }
  }
  try {
    return await get<Session>(CURRENT);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return null;
    throw error;
  }
}

/** The token of the address, which is taken out of it: it must not stay in the history. */
function takeToken(): string | null {
  if (!location.hash.startsWith(TOKEN)) return null;
  const token = decodeURIComponent(location.hash.slice(TOKEN.length));
  history.replaceState(null, "", location.pathname + location.search);
  return token;
}
