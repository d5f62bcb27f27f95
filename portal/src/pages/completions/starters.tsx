import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { ALL_MODELS } from "../../api/shared";
import { useText } from "../../i18n";
import { Empty, Snippet, Tabs } from "../../ui";
import { STARTERS, type Starter, starterOf } from "./snippets";

/** Nothing is stored yet: a call to paste. The list behind fills while the reader runs it. */
export function FirstCall() {
  const t = useText();
  const [starter, setStarter] = useState<Starter>("python");
  const models = useQuery(ALL_MODELS);
  const model = models.data?.data.find((one) => one.can.chat && one.kind === "teacher")?.name;
  return (
    <Empty title={t("completions.none_yet")}>
      <p className="quiet">{t("completions.none_yet_text")}</p>
      <p className="quiet">{t("completions.none_yet_key")}</p>
      {models.isSuccess && model === undefined && <p>{t("completions.no_model")}</p>}
      <Tabs
        label={t("completions.first_call")}
        tabs={STARTERS.map((name) => ({ name, label: t(`completions.starter_${name}`) }))}
        chosen={starter}
        onChoose={setStarter}
      >
        <Snippet
          label={t("completions.first_call")}
          code={starterOf(starter, window.location.origin, model ?? "gpt-4o")}
        />
      </Tabs>
      <p className="quiet" role="status">
        {t("completions.none_yet_live")}
      </p>
    </Empty>
  );
}
