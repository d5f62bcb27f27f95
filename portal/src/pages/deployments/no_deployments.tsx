import { useText } from "../../i18n";
import { Button, ButtonLink, Empty, Snippet } from "../../ui";
import { addressOf } from "./deploying";

export function NoDeployments({ onDeploy }: { onDeploy: () => void }) {
  const t = useText();
  return (
    <Empty title={t("deployments.empty_title")}>
      <p>{t("deployments.empty_text")}</p>
      <div className="row">
        <Button kind="primary" icon="plus" onClick={onDeploy}>
          {t("deployments.deploy")}
        </Button>
        <ButtonLink to="/distill" icon="distill">
          {t("deployments.to_distill")}
        </ButtonLink>
      </div>
      <p className="small quiet">{t("deployments.empty_snippet")}</p>
      <Snippet code={code()} label={t("deployments.empty_snippet")} />
    </Empty>
  );
}

/** Deploys the newest fine-tuned model as "my-student". */
function code(): string {
  return `MODEL=$(curl -s ${location.origin}/v1/models -H "Authorization: Bearer $OPENAI_API_KEY" |
  python3 -c 'import json, sys; print([m["id"] for m in json.load(sys.stdin)["data"] if m["id"].startswith("ft:")][-1])')
curl -X PUT "${location.origin}${addressOf("my-student")}" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"properties": {"model": {"format": "OpenAI", "name": "'$MODEL'"}}}'`;
}
