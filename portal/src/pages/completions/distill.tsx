// The way to the wizard that makes a student of the completions that are meant.

import { useLocation } from "wouter";
import { useText } from "../../i18n";
import { Button } from "../../ui";
import type { Target } from "./actions";
import { asked, having } from "./filter";

/** Where ids are left for the wizard: too many for an address. */
const KEPT_AS = "stillroom.selection";

export function Distill({ target }: { target: Target }) {
  const t = useText();
  const [, go] = useLocation();
  // Only complete answers are trained on, so the wizard knows no such condition.
  if ("filter" in target && target.filter.status === "incomplete") {
    return <span className="small quiet">{t("completions.distill_incomplete")}</span>;
  }
  const begin = () => {
    if ("filter" in target) return go(asked("/distill", having(target.filter, "status", undefined)));
    sessionStorage.setItem(KEPT_AS, JSON.stringify({ ids: target.ids }));
    go("/distill?ids=1");
  };
  return (
    <Button icon="distill" kind="primary" onClick={begin}>
      {t("completions.distill")}
    </Button>
  );
}
