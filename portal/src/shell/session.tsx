// Who is signed in. The secret is in a cookie that no script can read; the page only knows the key's name.

import { type QueryClient, useQuery, useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ApiError, get, post, remove } from "../api/http";
import type { Session } from "../api/types";
import { useText } from "../i18n";
import { Waiting } from "../ui";
import { SignIn } from "./sign_in";

const SESSIONS = "/v1/stillroom/sessions";
const CURRENT = `${SESSIONS}/current`;
const TOKEN = "#signin=";
/** Why the printed address signed nobody in. */
const REFUSED = ["sign-in-refused"];

/** The pages, once somebody is signed in; else the page to sign in. */
export function SessionGate({ children }: { children: ReactNode }) {
  const t = useText();
  const session = useSession();
  const refused = useQueryClient().getQueryData<ApiError>(REFUSED);
  if (session.isPending) return session.failureCount > 0 ? <Waiting text={t("common.reconnecting")} /> : <Waiting />;
  if (!session.data) return <SignIn refused={session.error ?? refused} />;
  return children;
}

export function useSession() {
  return useQuery({
    queryKey: ["session"],
    queryFn: ({ client }) => current(client),
    staleTime: Number.POSITIVE_INFINITY,
  });
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
async function current(client: QueryClient): Promise<Session | null> {
  const token = takeToken();
  if (token) {
    try {
      return await post<Session>(SESSIONS, { token });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) {
        location.hash = TOKEN + encodeURIComponent(token); // for when the server can be reached again
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
