// The door: the pages are behind it, the page to sign in before it.

import { type ReactNode, useEffect } from "react";
import { TOKEN, useRefused, useSession } from "../api/session";
import { useText } from "../i18n";
import { Waiting } from "../ui";
import { SignIn } from "./sign_in";

/** The pages, once somebody is signed in; else the page to sign in. */
export function SessionGate({ children }: { children: ReactNode }) {
  const t = useText();
  const session = useSession();
  usePrintedAddress();
  const refused = useRefused();
  if (session.isPending) return session.failureCount > 0 ? <Waiting text={t("common.reconnecting")} /> : <Waiting />;
  if (!session.data) return <SignIn refused={session.error ?? refused} />;
  return children;
}

/** The printed address may be opened where the portal is open already, which changes no more than its end. */
function usePrintedAddress(): void {
  useEffect(() => {
    const look = () => {
      if (location.hash.startsWith(TOKEN)) location.reload();
    };
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);
}
