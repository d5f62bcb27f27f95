import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function DeploymentsPage() {
  const t = useText();
  return <Page title={t("deployments.title")}>{null}</Page>;
}
