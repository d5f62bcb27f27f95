import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function JobsPage() {
  const t = useText();
  return <Page title={t("jobs.title")}>{null}</Page>;
}
