import java.util.List;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/** Hello HOST PORT NAME: sends Java's ClientHello. It fails, as nobody answers; what it has sent is what counts. */
class Hello {
    public static void main(String[] words) throws Exception {
        try (SSLSocket socket = (SSLSocket) SSLSocketFactory.getDefault().createSocket(words[0], Integer.parseInt(words[1]))) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setServerNames(List.of(new SNIHostName(words[2])));
            parameters.setApplicationProtocols(new String[] {"h2", "http/1.1"});
            socket.setSSLParameters(parameters);
            socket.startHandshake();
        } catch (java.io.IOException error) {
            System.err.println(error.getMessage());
        }
    }
}
