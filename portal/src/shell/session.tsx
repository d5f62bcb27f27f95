// Who is signed in. The secret is in a cookie that no script can read; the page only knows the key's name.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ApiError, get, post, remove } from "../api/http";
import type { Session } from "../api/types";
import { Waiting } from "../ui";
import { SignIn } from "./sign_in";

const SESSIONS = "/v1/stillroom/sessions";
const CURRENT = `${SESSIONS}/current`;
const TOKEN = "#signin=";

/** The pages, once somebody is signed in; else the page to sign in. */
export function SessionGate({ children }: { children: ReactNode }) {
  const session = useSession();
  if (session.isPending) return <Waiting />;
  if (!session.data) return <SignIn refused={session.error} />;
  return children;
}

export function useSession() {
  return useQuery({ queryKey: ["session"], queryFn: current, staleTime: Number.POSITIVE_INFINITY });
}

export async function signIn(key: string): Promise<Session> {
  return post<Session>(SESSIONS, { key });
}

export function useSignOut(): () => Promise<void> {
  const client = useQueryClient();
  return async () => {
    await remove(CURRENT);
    client.clear();
    client.setQueryData(["session"], null);
  };
}

/** The session of the cookie, else the one that the printed address's token begins; null for neither. */
async function current(): Promise<Session | null> {
  const token = takeToken();
  if (token) {
    try {
      return await post<Session>(SESSIONS, { token });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      // It was used already, which is no matter when its session is still there.
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
