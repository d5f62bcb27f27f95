import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ButtonLink, IconButton } from "../../ui";
import styles from "./models.module.css";

interface ModelActionsProps {
  model: Model;
  onDeploy: () => void;
  /** Null for what the configuration names, which is not deleted here. */
  onDelete: (() => void) | null;
}

/** What can be done with a model; only what it can. */
export function ModelActions({ model, onDeploy, onDelete }: ModelActionsProps) {
  const t = useText();
  const address = encodeURIComponent(model.name);
  const of = <span className="unseen"> {model.name}</span>;
  return (
    <div className={styles.actions}>
      {model.can.chat && (
        <ButtonLink to={`/playground?model=${address}`} icon="playground">
          <span>
            {t("models.try")}
            {of}
          </span>
        </ButtonLink>
      )}
      {model.can.deploy && (
        <Button icon="deployments" onClick={onDeploy}>
          <span>
            {t("models.deploy")}
            {of}
          </span>
        </Button>
      )}
      {model.can.fine_tune && (
        <ButtonLink to={`/distill?student=${address}`} icon="distill">
          <span>
            {t("models.distill")}
            {of}
          </span>
        </ButtonLink>
      )}
      {onDelete && <IconButton icon="trash" label={t("models.delete_name", { name: model.name })} onClick={onDelete} />}
    </div>
  );
}
